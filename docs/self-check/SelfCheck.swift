// Not compiled here: it needs Xcode. Tells whether Core ML on this device computes the integer function: runs the
// golden inputs of a bundle, hashes the codes.
//
//   try selfCheck(bundle: folder, model: Bundle.main.url(forResource: "stage2", withExtension: "mlmodelc")!)
//
// `folder` has the bundle's manifest.json and golden/; `model` is what Xcode makes of the .mlpackage. iOS 17 or later.

import CoreML
import CryptoKit
import Foundation

private struct Manifest: Decodable {
    struct Tensor: Decodable {
        let name: String
        let shape: [Int]
        let scale: Float
        let zero_point: Int
        var elements: Int { shape.reduce(1, *) }
    }
    struct Border: Decodable { let dtype, layout: String }
    struct Artifact: Decodable { let border: Border }
    let inputs, outputs: [Tensor]
    let artifacts: [String: Artifact]
    let golden_sha256: String
}

/// Whether the codes are the golden ones. Takes a moment: not for the main thread.
func selfCheck(bundle: URL, model: URL) throws -> Bool {
    func read(_ path: String) throws -> Data { try Data(contentsOf: bundle.appendingPathComponent(path)) }
    let manifest = try JSONDecoder().decode(Manifest.self, from: read("manifest.json"))
    let border = manifest.artifacts["coreml"]?.border
    precondition(border?.dtype == "float32" && border?.layout == "NCHW", "not for this border")
    let configuration = MLModelConfiguration()
    configuration.computeUnits = .cpuOnly
    let program = try MLModel(contentsOf: model, configuration: configuration)

    let golden = try manifest.inputs.indices.map { try read("golden/input-\($0).i8").map { Int8(bitPattern: $0) } }
    var codes = [[UInt8]](repeating: [], count: manifest.outputs.count)
    for image in 0..<(golden[0].count / manifest.inputs[0].elements) {
        var given: [String: MLFeatureValue] = [:]
        for (x, asked) in zip(manifest.inputs, golden) {
            let one = asked[(image * x.elements)..<((image + 1) * x.elements)]
            let reals = one.map { x.scale * Float(Int($0) - x.zero_point) }
            given[x.name] = MLFeatureValue(shapedArray: MLShapedArray<Float>(scalars: reals, shape: x.shape))
        }
        let answers = try program.prediction(from: MLDictionaryFeatureProvider(dictionary: given))
        for (o, y) in manifest.outputs.enumerated() {
            for real in answers.featureValue(for: y.name)!.shapedArrayValue(of: Float.self)!.scalars {
                let code = (real / y.scale).rounded(.toNearestOrEven) + Float(y.zero_point)
                guard let int8 = Int8(exactly: code) else { return false }
                codes[o].append(UInt8(bitPattern: int8))
            }
        }
    }
    let digest = SHA256.hash(data: Data(codes.joined()))
    return digest.map { String(format: "%02x", $0) }.joined() == manifest.golden_sha256
}
