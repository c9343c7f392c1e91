// What the kernel and the CPU say about themselves: instruction sets, part number, peak memory.
#pragma once

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

// Names as Linux prints them in /proc/cpuinfo; those that decide which int8 kernel runs.
inline std::vector<std::string> cpu_features() {
  std::vector<std::string> names;
#if defined(__aarch64__)
  const unsigned long one = getauxval(AT_HWCAP), two = getauxval(AT_HWCAP2);
  if (one & HWCAP_ASIMD) names.push_back("asimd");
  if (one & HWCAP_ASIMDHP) names.push_back("asimdhp");
  if (one & HWCAP_ASIMDDP) names.push_back("asimddp");
  if (one & HWCAP_SVE) names.push_back("sve");
  if (two & HWCAP2_SVE2) names.push_back("sve2");
  if (two & HWCAP2_I8MM) names.push_back("i8mm");
  if (two & HWCAP2_BF16) names.push_back("bf16");
  if (two & HWCAP2_SME) names.push_back("sme");
#elif defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) names.push_back("avx2");
  if (__builtin_cpu_supports("fma")) names.push_back("fma");
  if (__builtin_cpu_supports("avx512f")) names.push_back("avx512f");
  if (__builtin_cpu_supports("avx512vnni")) names.push_back("avx512vnni");
#endif
  return names;
}

// Implementer, part and revision of the core this runs on, as hexadecimal; empty where it cannot be read.
inline std::string midr() {
  std::ostringstream text;
#if defined(__aarch64__)
  if (getauxval(AT_HWCAP) & HWCAP_CPUID) {
    uint64_t value;
    asm("mrs %0, MIDR_EL1" : "=r"(value));
    text << "0x" << std::hex << value;
  }
#endif
  return text.str();
}

// A number of the kernel's about this process; 0 where it is not said.
inline double process_status(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.compare(0, key.size() + 1, key + ":") == 0) return std::stod(line.substr(key.size() + 1));
  return 0;
}

// The high-water mark of resident memory. getrusage's would start at what the parent process had.
inline double rss_peak_mib() { return process_status("VmHWM") / 1024; }
