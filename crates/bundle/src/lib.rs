//! Write, read, sign and check preverify bundles.
