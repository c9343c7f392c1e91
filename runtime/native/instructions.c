/* Counts the instructions of a program's first thread under qemu-user: a cost that repeats, where time means nothing.
 *
 *   cc -O2 -shared -fPIC -o libinstructions.so instructions.c
 *   qemu-aarch64 -plugin libinstructions.so,out=count.txt program
 *
 * Only the first thread is counted, because it alone computes when a runtime is told to use one thread, and
 * what others do (ONNX Runtime starts one of its own) depends on time. The inline addition that the interface
 * also has cannot tell threads apart, and loses counts when two run.
 *
 * The dynamically linked qemu-user loads it (the static one loads no plugins). Distributions package no
 * header, so the few declarations of plugin interface version 1 that are needed stand here.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_info;
struct qemu_plugin_tb;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned int, void *),
                                          enum qemu_plugin_cb_flags, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

static uint64_t executed;
static char path[4096];

static void on_run(unsigned int thread, void *instructions) {
  if (thread == 0) executed += (uintptr_t)instructions;
}

static void on_block(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_cb(block, on_run, QEMU_PLUGIN_CB_NO_REGS, (void *)qemu_plugin_tb_n_insns(block));
}

static void on_exit_(qemu_plugin_id_t id, void *unused) {
  (void)id, (void)unused;
  FILE *file = fopen(path, "w");
  if (!file) return;
  fprintf(file, "%" PRIu64 "\n", executed);
  fclose(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv) {
  (void)info;
  if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || strlen(argv[0] + 4) >= sizeof path) {
    fprintf(stderr, "instructions: needs one argument, out=FILE\n");
    return -1;
  }
  strcpy(path, argv[0] + 4);
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
  qemu_plugin_register_atexit_cb(id, on_exit_, NULL);
  return 0;
}
