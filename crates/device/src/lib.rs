//! Load pre-verified bundles on a device: library and preverify-load.
