// Caps the memory that onnxruntime-web asks for. It wants room for 4 GiB of shared memory, which phones refuse;
// the networks here need a few tens of MiB. Import this before onnxruntime-web.

const CAP_PAGES = 4096; // of 64 KiB: 256 MiB

const Original = WebAssembly.Memory;

WebAssembly.Memory = class Memory extends Original {
  constructor(descriptor) {
    super({ ...descriptor, maximum: Math.min(descriptor.maximum ?? CAP_PAGES, CAP_PAGES) });
  }
};
