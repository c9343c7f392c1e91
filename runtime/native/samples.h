// Tensors in files: what a program declares, .npy and raw samples in, .npy samples out; and how a failure is said.
#pragma once

#include <executorch/runtime/core/exec_aten/exec_aten.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Failure : std::runtime_error {
  enum Kind { kFlags = 2, kModel = 3, kInput = 4, kExecution = 5 };
  Failure(Kind kind, const std::string& message) : std::runtime_error(message), status(kind) {}
  const char* name() const {
    return status == kFlags ? "flags" : status == kModel ? "model" : status == kInput ? "input" : "execution";
  }
  Kind status;
};

inline std::string quoted(const std::string& text) {
  std::ostringstream json;
  json << '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') json << '\\' << c;
    else if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) json << '?';
    else json << c;
  }
  json << '"';
  return json.str();
}

inline std::string element(const std::string& text) { return quoted(text); }
template <class Number>
std::string element(Number value) { return std::to_string(value); }

template <class T>
std::string list(const std::vector<T>& values) {
  std::string json = "[";
  for (const T& value : values) json += (json.size() > 1 ? ", " : "") + element(value);
  return json + "]";
}

inline uint64_t fnv1a(const char* data, size_t bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < bytes; ++i) hash = (hash ^ static_cast<unsigned char>(data[i])) * 0x100000001b3u;
  return hash;
}

// Element type and sizes of one input or output, numpy's name for the type, and its dimensions from the slowest
// to the fastest in memory. Files are in C order whatever the program's is: NHWC is its own affair.
struct TensorType {
  TensorType(std::string tensor, executorch::aten::ScalarType scalar, std::vector<int32_t> shape,
             std::vector<uint8_t> dimensions)
      : name(std::move(tensor)), dtype(scalar), sizes(std::move(shape)), order(std::move(dimensions)) {
    using executorch::aten::ScalarType;
    switch (dtype) {
      case ScalarType::Float: descr = "<f4"; break;
      case ScalarType::Double: descr = "<f8"; break;
      case ScalarType::Half: descr = "<f2"; break;
      case ScalarType::Char: descr = "|i1"; break;
      case ScalarType::Byte: descr = "|u1"; break;
      case ScalarType::Bool: descr = "|b1"; break;
      case ScalarType::Short: descr = "<i2"; break;
      case ScalarType::Int: descr = "<i4"; break;
      case ScalarType::Long: descr = "<i8"; break;
      default:
        throw Failure(Failure::kModel, name + " has an element type (number " +
                      std::to_string(static_cast<int>(dtype)) + ") that numpy has no name for");
    }
    std::vector<uint8_t> counted(sizes.size());
    std::iota(counted.begin(), counted.end(), 0);
    const bool ordered = order.size() == sizes.size() && std::is_permutation(order.begin(), order.end(), counted.begin());
    if (!ordered || std::any_of(sizes.begin(), sizes.end(), [](int32_t size) { return size < 1; }))
      throw Failure(Failure::kModel, name + " has an impossible shape or order of dimensions: " + list(sizes));
    element = static_cast<size_t>(descr[2] - '0');
    bytes = std::accumulate(sizes.begin(), sizes.end(), element, std::multiplies<size_t>());
  }

  bool c_order() const { return std::is_sorted(order.begin(), order.end()); }

  // Calls `copy` with the offset of each element in C order, and in memory.
  template <class Copy>
  void each_element(Copy copy) const {
    std::vector<size_t> stride(sizes.size()), index(sizes.size());
    size_t step = element, memory = 0;
    for (size_t i = order.size(); i-- > 0; step *= static_cast<size_t>(sizes[order[i]])) stride[order[i]] = step;
    for (size_t offset = 0; offset < bytes; offset += element) {
      copy(offset, memory);
      for (size_t d = sizes.size(); d-- > 0;) {
        memory += stride[d];
        if (++index[d] < static_cast<size_t>(sizes[d])) break;
        memory -= stride[d] * index[d];
        index[d] = 0;
      }
    }
  }

  std::string name;
  executorch::aten::ScalarType dtype;
  std::vector<int32_t> sizes;
  std::vector<uint8_t> order;
  std::string descr;
  size_t element, bytes;
};

// Memory with an inaccessible page behind it, as a caller's tensor may have: a program that reads further crashes.
inline std::shared_ptr<char> guarded(size_t bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), usable = (bytes + page - 1) / page * page;
  void* start = mmap(nullptr, usable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) throw std::bad_alloc();
  std::shared_ptr<void> mapping(start, [=](void* memory) { munmap(memory, usable + page); });
  char* end = static_cast<char*>(start) + usable;
  if (mprotect(end, page, PROT_NONE) != 0) throw std::bad_alloc();
  return {mapping, end - bytes};
}

// Samples of one input behind one another in a file; only the current one is in memory.
class SampleReader {
 public:
  SampleReader(const std::string& path, const TensorType& type)
      : type_(type), path_(path), file_(path, std::ios::binary), memory_(guarded(type.bytes)),
        file_order_(type.c_order() ? 0 : type.bytes), bytes_(type.bytes) {
    if (!file_) fail("cannot be read: " + std::string(std::strerror(errno)));
    char magic[6] = {};
    file_.read(magic, sizeof magic);
    const bool npy = file_.gcount() == sizeof magic && std::memcmp(magic, "\x93NUMPY", sizeof magic) == 0;
    file_.clear();
    if (npy) start_ = check_header();
    file_.seekg(0, std::ios::end);
    const auto end = file_.tellg();
    if (end < 0) fail("is no regular file");
    const size_t size = static_cast<size_t>(end) - start_;
    samples_ = size / bytes_;
    if (samples_ == 0 || size % bytes_ != 0 || (npy && samples_ != declared_))
      fail("holds " + std::to_string(size) + " bytes of data, but " + type_.name + " takes " +
           (npy ? std::to_string(declared_ * bytes_) + ", as its header says" : std::to_string(bytes_) + " or a multiple") +
           ": the file is truncated or of another model");
  }

  size_t samples() const { return samples_; }
  char* data() { return memory_.get(); }

  void read(size_t sample) {
    char* into = file_order_.empty() ? data() : file_order_.data();
    file_.seekg(static_cast<std::streamoff>(start_ + sample * bytes_));
    if (!file_.read(into, static_cast<std::streamsize>(bytes_))) fail("became shorter while it was read");
    if (!file_order_.empty())
      type_.each_element([&](size_t file, size_t memory) {
        std::memcpy(data() + memory, &file_order_[file], type_.element);
      });
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { throw Failure(Failure::kInput, "input file " + path_ + " " + why); }

  // Sizes in `.npy` are [N * first, rest...] for N samples of [first, rest...]. Returns where the data starts.
  size_t check_header() {
    const TensorType& type = type_;
    unsigned char prefix[12] = {};
    file_.seekg(0);
    file_.read(reinterpret_cast<char*>(prefix), sizeof prefix);
    const size_t start = prefix[6] == 1 ? 10 : 12;
    const size_t length = prefix[6] == 1 ? prefix[8] | prefix[9] << 8
                                         : prefix[8] | prefix[9] << 8 | prefix[10] << 16 | size_t(prefix[11]) << 24;
    std::string header(std::min<size_t>(length, 1 << 16), '\0');
    file_.clear();
    file_.seekg(static_cast<std::streamoff>(start));
    if (!file_.read(&header[0], static_cast<std::streamsize>(header.size())) || header.size() != length)
      fail("has a truncated .npy header");

    if (header.find("'descr': '" + type.descr + "'") == std::string::npos)
      fail("does not hold " + type.descr + ", the element type of " + type.name + ": its .npy header is " + header);
    if (header.find("'fortran_order': False") == std::string::npos) fail("is in Fortran order: save it C-contiguous");
    std::vector<int64_t> shape;
    const size_t open = header.find("'shape': (");
    std::stringstream numbers(open == std::string::npos ? "" : header.substr(open + 10));
    for (int64_t size; numbers >> size;) {
      shape.push_back(size);
      if (numbers.peek() == ',') numbers.get();
    }
    const bool same_rank = !shape.empty() && shape.size() == type.sizes.size();
    if (!same_rank || !std::equal(shape.begin() + 1, shape.end(), type.sizes.begin() + 1) || shape[0] <= 0 ||
        shape[0] % type.sizes[0] != 0)
      fail("has shape " + list(shape) + ", but " + type.name + " has shape " + list(type.sizes) +
           " (or a multiple of its first size, for several samples)");
    declared_ = static_cast<size_t>(shape[0] / type.sizes[0]);
    return start + length;
  }

  TensorType type_;
  std::string path_;
  std::ifstream file_;
  std::shared_ptr<char> memory_;
  std::vector<char> file_order_;
  size_t bytes_, start_ = 0, samples_ = 0, declared_ = 0;
};

// Samples of one output behind one another in a .npy of shape [N * first, rest...].
class SampleWriter {
 public:
  SampleWriter(const std::string& path, const TensorType& type, size_t samples)
      : type_(type), path_(path), file_(path, std::ios::binary), file_order_(type.c_order() ? 0 : type.bytes) {
    std::vector<size_t> shape(type.sizes.begin(), type.sizes.end());
    if (!shape.empty()) shape[0] *= samples;
    else if (samples > 1) shape.push_back(samples);
    std::string sizes;
    for (size_t size : shape) sizes += std::to_string(size) + ",";
    std::string header = "{'descr': '" + type.descr + "', 'fortran_order': False, 'shape': (" + sizes + "), }";
    header.append(63 - (10 + header.size()) % 64, ' ') += '\n';
    file_.write("\x93NUMPY\x01\x00", 8).put(static_cast<char>(header.size() & 255)).put(static_cast<char>(header.size() >> 8));
    file_ << header;
    check();
  }

  void write(const char* data) {
    if (!file_order_.empty()) {
      type_.each_element([&](size_t file, size_t memory) {
        std::memcpy(&file_order_[file], &data[memory], type_.element);
      });
      data = file_order_.data();
    }
    file_.write(data, static_cast<std::streamsize>(type_.bytes));
    check();
  }

  void close() {
    file_.close();
    check();
  }

 private:
  void check() const {
    if (!file_) throw Failure(Failure::kInput, "output file " + path_ + " cannot be written: " + std::strerror(errno));
  }

  TensorType type_;
  std::string path_;
  std::ofstream file_;
  std::vector<char> file_order_;
};
