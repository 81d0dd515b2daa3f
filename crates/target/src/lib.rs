//! Target kernels: import, probe, store.
