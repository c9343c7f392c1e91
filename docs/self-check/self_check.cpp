// Tells whether ExecuTorch here computes the integer function: runs the golden inputs of a bundle, hashes the codes.
//
//   self_check bundle      exit status 0: it does; 1: it does not; 2: something is missing
//
// It needs Debian's packages nlohmann-json3-dev and libssl-dev, and ExecuTorch's wheel, unpacked at $EXECUTORCH:
//
//   g++ -std=c++17 -O2 self_check.cpp -o self_check -DC10_USING_CUSTOM_GENERATED_MACROS
//     -I$EXECUTORCH/include -I$EXECUTORCH/include/executorch/runtime/core/portable_type/c10
//     -L$EXECUTORCH/lib -Wl,-rpath,$EXECUTORCH/lib,--no-as-needed,--allow-shlib-undefined
//     -lexecutorch -lexecutorch_threadpool -lexecutorch_backend_xnnpack -lcrypto

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <nlohmann/json.hpp>
#include <openssl/evp.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

struct Tensor {  // an input or output in the manifest
  explicit Tensor(const nlohmann::json& said)
      : shape(said.at("shape")), scale(said.at("scale")), zero_point(said.at("zero_point")) {
    for (int size : shape) elements *= size;
  }
  std::vector<int> shape;
  float scale;
  int zero_point;
  size_t elements = 1;
};

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string sha256(const std::string& bytes) {
  unsigned char digest[32];
  EVP_Digest(bytes.data(), bytes.size(), digest, nullptr, EVP_sha256(), nullptr);
  std::string hex;
  for (int byte : digest) hex += {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
  return hex;
}

bool self_check(const std::string& bundle) {
  const auto manifest = nlohmann::json::parse(read(bundle + "/manifest.json"));
  const auto artifact = manifest.at("artifacts").at("executorch");
  if (artifact.at("border").at("dtype") != "float32" || artifact.at("border").at("layout") != "NCHW")
    throw std::runtime_error("the border is not float32 in NCHW, for which this check was written");
  executorch::extension::Module program(bundle + "/" + artifact.at("file").get<std::string>());

  std::vector<Tensor> inputs, outputs;
  for (const auto& said : manifest.at("inputs")) inputs.emplace_back(said);
  for (const auto& said : manifest.at("outputs")) outputs.emplace_back(said);
  std::vector<std::string> golden, codes(outputs.size());
  for (size_t i = 0; i < inputs.size(); ++i)
    golden.push_back(read(bundle + "/golden/input-" + std::to_string(i) + ".i8"));

  for (size_t image = 0; image < golden[0].size() / inputs[0].elements; ++image) {
    std::vector<executorch::extension::TensorPtr> tensors;
    std::vector<executorch::runtime::EValue> values;
    for (size_t i = 0; i < inputs.size(); ++i) {
      std::vector<float> reals;
      for (signed char code : golden[i].substr(image * inputs[i].elements, inputs[i].elements))
        reals.push_back(inputs[i].scale * float(code - inputs[i].zero_point));
      tensors.push_back(executorch::extension::make_tensor_ptr(inputs[i].shape, reals));
      values.emplace_back(*tensors[i]);
    }
    const auto answers = program.forward(values);
    if (!answers.ok()) throw std::runtime_error("ExecuTorch has error " + std::to_string(int(answers.error())));
    for (size_t o = 0; o < outputs.size(); ++o) {
      const float* y = answers->at(o).toTensor().const_data_ptr<float>();
      for (size_t k = 0; k < outputs[o].elements; ++k)  // lrint rounds half to even
        codes[o] += char(std::lrint(y[k] / outputs[o].scale) + outputs[o].zero_point);
    }
  }
  std::string all;
  for (const std::string& output : codes) all += output;
  return sha256(all) == manifest.at("golden_sha256");
}

int main(int count, char** words) try {
  if (count != 2) throw std::runtime_error("usage: self_check bundle");
  const bool equal = self_check(words[1]);
  std::puts(equal ? "the codes are equal" : "the codes differ: this is not the integer function");
  return equal ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
