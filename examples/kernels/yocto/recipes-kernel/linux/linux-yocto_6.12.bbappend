# Put the output of `cargo xtask patches files` and preverified.cfg beside this file, in the folder files/.
FILESEXTRAPATHS:prepend := "${THISDIR}/files:"

SRC_URI += " \
    file://0001-bpf-Move-bpf_check_attach_target-to-a-file-of-its-ow.patch \
    file://0002-bpf-Keep-what-running-programs-need-out-of-the-verif.patch \
    file://0003-bpf-Make-the-verifier-s-limits-parameters.patch \
    file://0004-bpf-Let-programs-that-were-verified-elsewhere-have-i.patch \
    file://0005-bpf-Load-programs-that-were-verified-elsewhere.patch \
    file://0006-bpf-Make-the-verifier-optional.patch \
    file://0007-bpf-Drop-what-only-the-verifier-asks-without-it.patch \
    file://0008-bpf-Make-the-JIT-compiler-optional.patch \
    file://preverified.cfg \
"

# vmlinux with its symbols, and the device's BTF, are what bundles are built with.
DEPENDS += "pahole-native"

do_deploy:append() {
    install -m 0644 ${B}/vmlinux ${DEPLOYDIR}/vmlinux-${KERNEL_VERSION}
    pahole -J --btf_gen_floats --lang_exclude=rust \
        --btf_encode_detached ${DEPLOYDIR}/btf-${KERNEL_VERSION} ${B}/vmlinux
}
