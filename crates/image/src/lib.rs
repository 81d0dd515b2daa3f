//! Relocatable images of BPF programs: discover, relink, prove.
