// Runs one ExecuTorch program on a device that has neither Python nor torch, and says how long each query took.
//
//   runner --model net.pte [--input x.npy]... [--output prefix] [--warmup 10] [--iterations 100]
//          [--threads 1] [--affinity 4-7]
//
// An input is a .npy or raw little-endian file that holds one sample or several of them, one behind the other.
// Every sample is run once, its outputs go to prefix.0.npy, prefix.1.npy, ...; then `warmup` and `iterations`
// queries are timed over the same samples in turn; then every sample is run again and compared byte by byte.
// Standard output gets one JSON object: the result, or {"error": {"kind", "message"}} and an exit status of
// 2 (flags), 3 (model), 4 (input or output file), 5 (execution) or 70 (the program crashed the runtime).

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/platform/runtime.h>
#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "device.h"
#include "samples.h"

// The wheel ships this library but not its header.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Tag;

struct Flags {
  std::string model, output;
  std::vector<std::string> inputs;
  int warmup = 0, iterations = 0, threads = 1;
  std::vector<int> affinity;
};

int count(const std::string& flag, const std::string& text, int least) {
  size_t end = 0;
  int value = least - 1;
  try {
    value = std::stoi(text, &end);
  } catch (const std::logic_error&) {
  }
  if (end != text.size() || value < least)
    throw Failure(Failure::kFlags, flag + " (=" + text + ") must be a whole number >= " + std::to_string(least));
  return value;
}

std::vector<int> cores(const std::string& text) {
  std::vector<int> cores;
  std::stringstream list(text);
  for (std::string part; std::getline(list, part, ',');) {
    const size_t dash = part.find('-');
    const int first = count("--affinity", part.substr(0, dash), 0);
    const int last = dash == std::string::npos ? first : count("--affinity", part.substr(dash + 1), first);
    if (last >= CPU_SETSIZE)
      throw Failure(Failure::kFlags, "--affinity (=" + text + ") names a core above " + std::to_string(CPU_SETSIZE - 1));
    for (int core = first; core <= last; ++core) cores.push_back(core);
  }
  return cores;
}

constexpr char kHelp[] =
    "usage: runner --model net.pte [--input x.npy]... [--output prefix] [--warmup 10] [--iterations 100]\n"
    "              [--threads 1] [--affinity 4-7]\n\n"
    "Runs every sample of the inputs once (outputs go to prefix.0.npy, prefix.1.npy, ...), times `warmup` and\n"
    "`iterations` queries over them, and compares a last run with the first byte by byte. Prints one JSON object:\n"
    "the result, or {\"error\": {\"kind\", \"message\"}} with status 2 (flags), 3 (model), 4 (file), 5 (execution)\n"
    "or 70 (crash).\n";

bool asks_for_help(int argc, char** argv) {
  for (int i = 1; i < argc; i += 2)
    if (!std::strcmp(argv[i], "--help") || !std::strcmp(argv[i], "-h")) return true;
  return false;
}

Flags parse(int argc, char** argv) {
  Flags flags;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc) throw Failure(Failure::kFlags, flag + " needs a value");
    const std::string value = argv[i + 1];
    if (flag == "--model") flags.model = value;
    else if (flag == "--input") flags.inputs.push_back(value);
    else if (flag == "--output") flags.output = value;
    else if (flag == "--warmup") flags.warmup = count(flag, value, 0);
    else if (flag == "--iterations") flags.iterations = count(flag, value, 0);
    else if (flag == "--threads") flags.threads = count(flag, value, 1);
    else if (flag == "--affinity") flags.affinity = cores(value);
    else
      throw Failure(Failure::kFlags, "unknown flag " + flag +
                    ": the flags are --model --input --output --warmup --iterations --threads --affinity");
  }
  if (flags.model.empty()) throw Failure(Failure::kFlags, "--model is missing: name a .pte file");
  return flags;
}

void pin(const std::vector<int>& cores) {
  if (cores.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int core : cores) CPU_SET(core, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0)
    throw Failure(Failure::kFlags, std::string("--affinity cannot be set: ") + std::strerror(errno));
}

std::string meaning(Error error) {
  return std::string(executorch::runtime::to_string(error)) + " (" + std::to_string(static_cast<int>(error)) + ")";
}

template <class Result>
auto& checked(Result& result, const std::string& what) {
  if (!result.ok()) throw Failure(Failure::kModel, what + ": " + meaning(result.error()));
  return *result;
}

TensorType type_of(const executorch::runtime::TensorInfo& info, const std::string& name) {
  return TensorType(name, info.scalar_type(), {info.sizes().begin(), info.sizes().end()},
                    {info.dim_order().begin(), info.dim_order().end()});
}

class Program {
 public:
  Program(const std::string& path) : module_(path, Module::LoadMode::File) {
    const std::string name = "model " + path;
    if (FILE* file = std::fopen(path.c_str(), "rb")) std::fclose(file);
    else throw Failure(Failure::kModel, name + " cannot be read: " + std::strerror(errno));
    using Verification = executorch::runtime::Program::Verification;
    if (const Error error = module_.load(Verification::InternalConsistency); error != Error::Ok)
      throw Failure(Failure::kModel, name + " is no valid ExecuTorch program: " + meaning(error));
    if (const Error error = module_.load_method("forward"); error != Error::Ok)
      throw Failure(Failure::kModel, name + " has no `forward` that this runner can load: " + meaning(error));

    auto result = module_.method_meta("forward");
    auto& meta = checked(result, name);
    for (size_t i = 0; i < meta.num_inputs(); ++i) {
      auto info = meta.input_tensor_meta(i);
      inputs.push_back(type_of(checked(info, name + ", input " + std::to_string(i)), "input " + std::to_string(i)));
    }
    for (size_t i = 0; i < meta.num_outputs(); ++i) {
      auto info = meta.output_tensor_meta(i);
      outputs.push_back(type_of(checked(info, name + ", output " + std::to_string(i)), "output " + std::to_string(i)));
    }
  }

  // Runs the sample that `tensors` point at; the outputs stay valid until the next call. Returns nanoseconds.
  int64_t run(const std::vector<EValue>& tensors, std::vector<const char*>& data) {
    getppid();  // marks where an inference starts and ends, for instructions.c
    const auto start = std::chrono::steady_clock::now();
    auto result = module_.execute("forward", tensors);
    const auto stop = std::chrono::steady_clock::now();
    getppid();
    if (!result.ok()) throw Failure(Failure::kExecution, "the program failed: " + meaning(result.error()));
    data.clear();
    for (size_t i = 0; i < outputs.size(); ++i) {
      const auto& value = (*result)[i];
      if (!value.isTensor() || static_cast<size_t>(value.toTensor().nbytes()) != outputs[i].bytes ||
          value.toTensor().const_data_ptr() == nullptr)
        throw Failure(Failure::kExecution, outputs[i].name + " does not have the size the program declares");
      data.push_back(static_cast<const char*>(value.toTensor().const_data_ptr()));
    }
    return std::chrono::duration_cast<std::chrono::nanoseconds>(stop - start).count();
  }

  std::vector<TensorType> inputs, outputs;

 private:
  Module module_;
};

std::string run(const Flags& flags) {
  namespace pool = executorch::extension::threadpool;
  pin(flags.affinity);
  executorch::runtime::runtime_init();
  if (!pool::get_threadpool() || !pool::get_threadpool()->_unsafe_reset_threadpool(flags.threads))
    throw Failure(Failure::kExecution, "--threads (=" + std::to_string(flags.threads) + ") cannot be set");

  const auto start = std::chrono::steady_clock::now();
  Program program(flags.model);
  const std::chrono::duration<double, std::milli> load = std::chrono::steady_clock::now() - start;

  if (flags.inputs.size() != program.inputs.size())
    throw Failure(Failure::kInput, "the program has " + std::to_string(program.inputs.size()) + " inputs, but " +
                  std::to_string(flags.inputs.size()) + " --input files were given");
  std::vector<SampleReader> readers;
  std::vector<executorch::extension::TensorPtr> tensors;
  std::vector<EValue> values;
  for (size_t i = 0; i < flags.inputs.size(); ++i) {
    readers.emplace_back(flags.inputs[i], program.inputs[i]);
    const auto& type = program.inputs[i];
    tensors.push_back(executorch::extension::make_tensor_ptr(type.sizes, readers[i].data(), type.order, {}, type.dtype));
    values.emplace_back(*tensors[i]);
  }
  const size_t samples = readers.empty() ? 1 : readers[0].samples();
  for (size_t i = 0; i < readers.size(); ++i)
    if (readers[i].samples() != samples)
      throw Failure(Failure::kInput, flags.inputs[i] + " holds " + std::to_string(readers[i].samples()) +
                    " samples, but " + flags.inputs[0] + " holds " + std::to_string(samples));

  const auto read = [&](size_t sample) {
    for (auto& reader : readers) reader.read(sample);
  };
  std::vector<const char*> outputs;
  std::vector<SampleWriter> writers;
  std::vector<uint64_t> hashes;
  int64_t first = 0;
  for (size_t i = 0; !flags.output.empty() && i < program.outputs.size(); ++i)
    writers.emplace_back(flags.output + "." + std::to_string(i) + ".npy", program.outputs[i], samples);
  for (size_t sample = 0; sample < samples; ++sample) {
    read(sample);
    const int64_t elapsed = program.run(values, outputs);
    if (sample == 0) first = elapsed;
    for (size_t i = 0; i < writers.size(); ++i) writers[i].write(outputs[i]);
    for (size_t i = 0; i < outputs.size(); ++i) hashes.push_back(fnv1a(outputs[i], program.outputs[i].bytes));
  }
  for (auto& writer : writers) writer.close();

  std::vector<int64_t> warmup, query;
  for (int i = 0; i < flags.warmup + flags.iterations; ++i) {
    if (samples > 1 || i == 0) read(i % samples);
    (i < flags.warmup ? warmup : query).push_back(program.run(values, outputs));
  }
  bool repeats = true;
  for (size_t sample = 0; flags.iterations > 0 && sample < samples; ++sample) {
    read(sample);
    program.run(values, outputs);
    for (size_t i = 0; i < outputs.size(); ++i)
      repeats &= hashes[sample * outputs.size() + i] == fnv1a(outputs[i], program.outputs[i].bytes);
  }

  std::ostringstream json;
  json.precision(9);
  json << "{\"runtime\": \"executorch " << EXECUTORCH_VERSION << "\", \"samples\": " << samples << ", \"threads\": " << pool::get_threadpool()->get_thread_count()
       << ", \"process_threads\": " << process_status("Threads") << ", \"load_ms\": " << load.count() << ", \"first_ms\": " << double(first) / 1e6
       << ", \"warmup_ns\": " << list(warmup) << ", \"query_ns\": " << list(query)
       << ", \"outputs_repeat\": " << (repeats ? "true" : "false") << ", \"rss_peak_mib\": " << rss_peak_mib()
       << ", \"cpu_features\": " << list(cpu_features()) << ", \"midr\": " << quoted(midr()) << ", \"outputs\": [";
  for (size_t i = 0; i < program.outputs.size(); ++i)
    json << (i ? ", " : "") << "{\"dtype\": " << quoted(program.outputs[i].descr)
         << ", \"shape\": " << list(program.outputs[i].sizes) << "}";
  json << "]}\n";
  return json.str();
}

// A program that passes verification can still be malformed inside a delegate's blob; a caller that reads
// JSON must get JSON then too. Only async-signal-safe calls here.
void on_crash(int signal) {
  char text[] = "{\"error\": {\"kind\": \"crash\", \"message\": \"the runtime received signal 00 from this program\"}}\n";
  char* digits = std::strstr(text, "00");
  digits[0] = static_cast<char>('0' + signal / 10);
  digits[1] = static_cast<char>('0' + signal % 10);
  if (write(STDOUT_FILENO, text, sizeof text - 1) < 0) _exit(71);
  _exit(70);
}

int fail(const Failure& failure) {
  std::printf("{\"error\": {\"kind\": %s, \"message\": %s}}\n", quoted(failure.name()).c_str(), quoted(failure.what()).c_str());
  return failure.status;
}

}  // namespace

int main(int argc, char** argv) {
  for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) std::signal(signal, on_crash);
  try {
    std::fputs(asks_for_help(argc, argv) ? kHelp : run(parse(argc, argv)).c_str(), stdout);
    return std::fflush(stdout) == 0 ? 0 : 4;
  } catch (const Failure& failure) {
    return fail(failure);
  } catch (const std::exception& error) {  // bad_alloc and what the runtime may throw
    return fail(Failure(Failure::kExecution, error.what()));
  }
}
