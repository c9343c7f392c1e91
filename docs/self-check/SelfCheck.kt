// Not compiled here: it needs Android. Tells whether LiteRT on this device computes the integer function: runs the
// golden inputs of a bundle, hashes the codes.
//
// build.gradle.kts: implementation("com.google.ai.edge.litert:litert:2.3.0")
// src/main/assets: of the bundle manifest.json, the .tflite of `litert`, and golden/ with its input files

import android.content.Context
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import java.security.MessageDigest
import kotlin.math.round
import org.json.JSONObject

private class Tensor(said: JSONObject) {
    private val channels = said.getJSONArray("shape").getInt(1)
    private val pixels = said.getJSONArray("shape").getInt(2) * said.getJSONArray("shape").getInt(3)
    val elements = channels * pixels
    val scale = said.getDouble("scale").toFloat()
    val zeroPoint = said.getInt("zero_point")

    // Where in an image of the golden codes, NCHW, a value of the border is, NHWC.
    fun planar(place: Int) = place % channels * pixels + place / channels
}

/** Whether the codes are the golden ones. Takes a moment: not for the main thread. */
fun selfCheck(context: Context): Boolean {
    fun read(path: String) = context.assets.open(path).use { it.readBytes() }
    val manifest = JSONObject(String(read("manifest.json")))
    val (inputs, outputs) = listOf("inputs", "outputs").map { key ->
        val said = manifest.getJSONArray(key)
        List(said.length()) { Tensor(said.getJSONObject(it)) }
    }
    val artifact = manifest.getJSONObject("artifacts").getJSONObject("litert")
    val border = artifact.getJSONObject("border")
    check(border.getString("dtype") == "float32" && border.getString("layout") == "NHWC") { "not for $border" }

    val golden = inputs.indices.map { read("golden/input-$it.i8") }
    val images = golden[0].size / inputs[0].elements
    val codes = outputs.map { ByteArray(images * it.elements) }
    val options = CompiledModel.Options(Accelerator.CPU) // XNNPACK
    CompiledModel.create(context.assets, artifact.getString("file"), options).use { model ->
        val given = model.createInputBuffers()
        val answers = model.createOutputBuffers()
        for (image in 0 until images) {
            inputs.forEachIndexed { i, x ->
                val asked = { place: Int -> golden[i][image * x.elements + x.planar(place)] }
                given[i].writeFloat(FloatArray(x.elements) { x.scale * (asked(it) - x.zeroPoint) })
            }
            model.run(given, answers)
            outputs.forEachIndexed { o, y ->
                answers[o].readFloat().forEachIndexed { place, real -> // round: half to even
                    val code = round(real / y.scale).toInt() + y.zeroPoint
                    codes[o][image * y.elements + y.planar(place)] = code.toByte()
                }
            }
        }
    }
    val digest = MessageDigest.getInstance("SHA-256")
    for (output in codes) digest.update(output)
    return digest.digest().joinToString("") { "%02x".format(it) } == manifest.getString("golden_sha256")
}
