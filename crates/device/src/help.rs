//! What `--help` says.

/// Of the command as a whole.
pub const COMMAND: &str = "\
preverify-load - load pre-verified BPF programs without verifying them here

    preverify-load load BUNDLE       load programs, pin them, end
    preverify-load run BUNDLE        load and attach programs, stay until SIGINT or SIGTERM
    preverify-load list              what is pinned
    preverify-load unload DIR        remove what `load` has pinned
    preverify-load trust CERT...     whom the kernel part trusts, decided once
    preverify-load fingerprint       what bundles must be built for
    preverify-load map dump PATH     a map's contents
    preverify-load events PATH       what programs send through a ring or perf buffer

Each has its own --help. The first time on a device:

    modprobe bpf_preverified
    preverify-load trust signer.pem
    preverify-load run count.pvb --attach xdp:eth0

Exit status: 0, or 1 for a failure, 2 for a wrong command line, 3 if the kernel part refused the
bundle or a program of it, or no image fits this machine: then the message has the kernel part's own
sentence.";

/// Of `load`.
pub const LOAD: &str = "\
preverify-load load BUNDLE [--program NAME]... [--pin DIR] [--attach PROGRAM=WHERE]... [--image KIND]
                    [--stock-limits]

Creates the maps that the programs need, has the kernel part load the programs, and pins them:
DIR/PROGRAM, DIR/maps/MAP, DIR/links/PROGRAM (and notes what each program was loaded from in
DIR/images); dots in names become '_'. DIR must not be in use, and
its parent folder must be in a BPF file system. If anything fails, nothing stays.
Maps that the object wants pinned at a path of their own are taken from there or pinned there.

    --program NAME           only this program (its function's name) and those that it calls through
                             prog arrays, with their maps
    --pin DIR                where to pin; without it, nothing stays: that only shows that the
                             bundle would load
    --attach PROGRAM=WHERE   attach it (forms of WHERE: see run --help) and pin the link, so that
                             it stays attached; needs --pin
    --image KIND             load all programs from `native` images (machine code) or from `bytecode`
                             (compiled by this kernel). Without it, from native images if they
                             fit this machine, else from bytecode
    --stock-limits           refuse programs whose verification needed raised limits (build --limits)

Example, as a service would do it when the device starts, and undo it:

    preverify-load load count.pvb --pin /sys/fs/bpf/count --attach xdp_count=xdp:eth0
    preverify-load unload /sys/fs/bpf/count";

/// Of `run`, but for the forms of plans that follow it.
pub const RUN: &str = "\
preverify-load run BUNDLE [--attach [PROGRAM=]WHERE]... [--pin DIR] [--image KIND] [--stock-limits]

Loads and attaches programs, says where, stays until SIGINT or SIGTERM, then detaches them. If
anything fails, nothing stays. If it is killed otherwise, the kernel detaches what is not pinned, but for
programs at a network interface's ingress or egress before Linux 6.6: `tc filter del` does it then.

    --attach [PROGRAM=]WHERE  attach this program, and load only what is attached; PROGRAM may be left
                              out if the bundle has one program. Without --attach, all programs are
                              attached where their sections say, as in SEC(\"tp/sched/sched_switch\")
    --pin DIR                 pin it all while it runs, as load does: for `map dump` and `events`
    --image KIND              `native` or `bytecode`, see load --help
    --stock-limits            see load --help

Example:

    preverify-load run count.pvb --attach xdp_count=xdp:eth0 --pin /sys/fs/bpf/count &
    preverify-load map dump /sys/fs/bpf/count/maps/counts
    kill %1

WHERE is one of:
";

/// Of `list`.
pub const LIST: &str = "\
preverify-load list [DIR] [--json]

Shows the programs, maps and links that are pinned in DIR and its folders; in /sys/fs/bpf without
DIR. Of programs that preverify-load has pinned, it says what they were loaded from: `native`, machine
code that came in the bundle, or `bytecode`, compiled by this kernel.

    --json    one array of objects

Example:

    preverify-load list /sys/fs/bpf/count";

/// Of `unload`.
pub const UNLOAD: &str = "\
preverify-load unload DIR

Removes what `load --pin DIR` has pinned: first the links, which detaches the programs, then programs
and maps. Whatever else is in use by then lives on with its users. A folder that is no bundle's is left
alone, and so are maps that the object wanted pinned elsewhere.

Example:

    preverify-load unload /sys/fs/bpf/count";

/// Of `trust`.
pub const TRUST: &str = "\
preverify-load trust CERT...

Puts certificates (X.509, DER or PEM; a PEM file may hold several) into the kernel part's keyring
.bpf_preverified and seals it. Nothing loads before that, and nobody is added after it. If one
certificate is refused, none is trusted and the keyring stays open.

Example:

    preverify-load trust /etc/preverify/signer.pem";

/// Of `fingerprint`.
pub const FINGERPRINT: &str = "\
preverify-load fingerprint [--json]

Shows what the kernel part compares with a bundle: the running kernel's build id, and the facts of this
machine that bundles are built for. The first ones matter to the verifier, so they must fit for every
program; those for native images matter to machine code: where they differ, programs that have
bytecode in the bundle are loaded from that. On arm64, these are LSE atomics, VHE (the kernel runs at EL2),
pointer authentication, branch target identification and the bits of an address.

    --json    one object, for `preverify target add --fingerprint`

Example, on the board and then where bundles are built:

    preverify-load fingerprint --json > board.json
    preverify target add debian:6.12-arm64 --name board --fingerprint board.json";

/// Of `map`.
pub const MAP: &str = "\
preverify-load map dump PATH [--json]

Shows the contents of the map that is pinned at PATH, in hexadecimal as they lie in memory, and as
numbers where they have the size of one. Values of per-CPU maps are shown for each CPU.

    --json    one array of objects

Example:

    preverify-load map dump /sys/fs/bpf/count/maps/counts";

/// Of `events`.
pub const EVENTS: &str = "\
preverify-load events PATH [--count N] [--timeout SECONDS] [--json]

Shows what programs send through the ring buffer or perf event array that is pinned at PATH, as it
comes. It takes what it shows: do not run it beside the buffer's usual reader.

    --count N            end after N events
    --timeout SECONDS    end after so long; with --count, it is a failure if fewer came
    --json               one object a line

Example:

    preverify-load events /sys/fs/bpf/count/maps/events --count 1 --timeout 10";
