//! `cargo xtask corpus limits`: a kernel whose limits are raised makes the images that the stock kernel makes.
//!
//! The stock kernel, Linux without our patches, verifies for itself, as any target. The verifier kernel does for devices with
//! that kernel, as a second build, and with limits far above Linux's. Both are for the same build: so what both accept must be
//! the same byte for byte, once it is linked.

use preverify_btf::Btf;
use preverify_bundle::{Bundle, Program};
use preverify_image::symbols::KernelSymbols;
use preverify_pipeline::{BuildError, Limits, Object, Verifier};
use preverify_target::Target;

use super::Extent;
use super::linked;
use super::run::{RunCorpusError, TIME_LIMIT, blamed, chosen, read};
use crate::arch::Arch;

/// What is raised, for machines as small as targets have them.
const RAISED: &str = "insns=64M,jumps=1M";

/// Which objects.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only objects whose ids contain one of these, as in `libbpf-tools/` or `selftests/loop`
    filter: Vec<String>,
    /// Only the fixed sample that `cargo xtask test` takes
    #[arg(long)]
    sample: bool,
    /// The architecture of the kernels
    #[arg(long, value_enum, default_value_t = Arch::X86_64)]
    pub arch: Arch,
}

/// What images are linked and compared with.
struct Kernels<'a> {
    /// The symbols of the stock kernel, which is that of devices.
    symbols: KernelSymbols,
    /// The types of the stock kernel, and of the one whose limits are raised.
    types: [&'a Btf; 2],
}

/// What came out, in programs unless it says otherwise.
#[derive(Default)]
struct Counts {
    same: usize,
    images: usize,
    other: usize,
    /// Objects that one kernel carries, and the other does not.
    only_stock: usize,
    only_raised: usize,
    /// Objects that neither does.
    neither: usize,
}

/// Verifies objects for two targets with one and the same device kernel, and compares the images.
pub fn limits(args: &Args, stock: &Target, raised: &Target) -> Result<(), RunCorpusError> {
    let chosen = chosen(Extent::sample_if(args.sample), &args.filter, args.arch)?;
    let device = raised.device().expect("it is a target of two kernels");
    let builds = device.load()?;
    let kernels = Kernels {
        symbols: linked::symbols(&builds.symbols)?,
        types: [&builds.device.btf, &builds.verifier.btf],
    };
    let mut limits: Limits = RAISED.parse().expect("they are well-formed");
    limits.time = TIME_LIMIT;
    let mut stock = Side::new(stock, Limits::of_time(TIME_LIMIT));
    let mut raised = Side::new(raised, limits);
    let mut counts = Counts::default();
    for (index, found) in chosen.iter().enumerate() {
        let mut object = read(found)?;
        // What the stock kernel does not take is left out on the other side, too.
        let by_stock = stock.verify(&mut object);
        let by_raised = raised.verify(&mut object);
        let words = counts.compare(by_stock, by_raised, &kernels);
        println!("[{:>4}/{}] {}: {words}", index + 1, chosen.len(), found.id);
    }
    println!(
        "\n{} programs have the same images ({} images), {} have others; objects that only the stock kernel carries: {}, \
         only the raised one: {}, neither: {}",
        counts.same,
        counts.images,
        counts.other,
        counts.only_stock,
        counts.only_raised,
        counts.neither
    );
    match counts.other {
        0 => Ok(()),
        other => Err(RunCorpusError::OtherImages(other)),
    }
}

impl Counts {
    /// Compares one object's outcomes, and says what came out.
    fn compare(
        &mut self,
        stock: Result<Bundle, String>,
        raised: Result<Bundle, String>,
        kernels: &Kernels<'_>,
    ) -> String {
        let (stock, raised) = match (stock, raised) {
            (Ok(stock), Ok(raised)) => (stock, raised),
            (Ok(_), Err(why)) => {
                self.only_stock += 1;
                return format!("only by the stock kernel: {why}");
            }
            (Err(why), Ok(_)) => {
                self.only_raised += 1;
                return format!("only by the raised kernel: {why}");
            }
            (Err(why), Err(_)) => {
                self.neither += 1;
                return format!("by neither: {why}");
            }
        };
        let mut others = Vec::new();
        let mut same = 0;
        for program in programs(&stock) {
            // Only what both carry is compared.
            let function = &program.function;
            let mut candidates = programs(&raised);
            let Some(counterpart) = candidates.find(|other| other.function == *function) else {
                continue;
            };
            match compare_images([(&stock, program), (&raised, counterpart)], kernels) {
                Ok(images) => {
                    same += 1;
                    self.images += images;
                }
                Err(what) => others.push(format!("{function} ({what})")),
            }
        }
        self.same += same;
        self.other += others.len();
        match others.as_slice() {
            [] => format!("{same} programs the same"),
            others => format!("OTHERS: {}; {same} programs the same", others.join(", ")),
        }
    }
}

fn programs(bundle: &Bundle) -> impl Iterator<Item = &Program> {
    let targets = bundle.manifest().targets.iter();
    targets.flat_map(|target| &target.programs)
}

/// What differs between a program's images in two bundles; if nothing does, how many there are.
fn compare_images(
    [a, b]: [(&Bundle, &Program); 2],
    kernels: &Kernels<'_>,
) -> Result<usize, String> {
    let mut compared = 0;
    for (kind, images) in [
        ("machine code", [a.1.native, b.1.native]),
        ("bytecode", [a.1.bytecode, b.1.bytecode]),
    ] {
        let link = |(bundle, program), image| {
            linked::link(bundle, program, image, &kernels.symbols)
                .map_err(|error| error.to_string())
        };
        let difference = match images {
            [None, None] => continue,
            [Some(of_a), Some(of_b)] => link(a, of_a)?.difference(&link(b, of_b)?, kernels.types),
            _ => Some("only one has it".to_owned()),
        };
        if let Some(what) = difference {
            return Err(format!("{kind}: {what}"));
        }
        compared += 1;
    }
    Ok(compared)
}

/// One of the two targets.
struct Side<'a> {
    target: &'a Target,
    limits: Limits,
    verifier: Option<Verifier<&'a Target>>,
}

impl<'a> Side<'a> {
    fn new(target: &'a Target, limits: Limits) -> Self {
        Self {
            target,
            limits,
            verifier: None,
        }
    }

    /// Verifies an object without the programs that cannot be had, or says why there is nothing left of it.
    fn verify(&mut self, object: &mut Object) -> Result<Bundle, String> {
        loop {
            let error = match self.attempt(object) {
                Ok(bundle) => return Ok(bundle),
                Err(error) => error,
            };
            let without = match &error {
                BuildError::Rejected(rejection) => blamed(rejection).into_iter().collect(),
                BuildError::Programs(problems) => problems
                    .iter()
                    .map(|problem| problem.program.clone())
                    .collect(),
                BuildError::Machine(_)
                | BuildError::Agent { .. }
                | BuildError::TimedOut { .. }
                | BuildError::OutOfMemory { .. } => {
                    self.verifier = None;
                    Vec::new()
                }
                _ => Vec::new(),
            };
            let mut left_out = false;
            for program in without {
                let program = object.inputs.programs.entry(program).or_default();
                left_out |= program.autoload.replace(false) != Some(false);
            }
            // libbpf loads some programs whatever is asked of it.
            if !left_out {
                return Err(reason(&error));
            }
        }
    }

    fn attempt(&mut self, object: &Object) -> Result<Bundle, BuildError> {
        let verifier = match &mut self.verifier {
            Some(verifier) => verifier,
            none => none.insert(Verifier::start(self.target, self.limits)?),
        };
        let verified = verifier.verify(object, &mut |_| {})?;
        preverify_pipeline::bundle(&[(self.target, &verified)])
    }
}

/// Why an object cannot be had, in a line: a list of reasons has its first one on the second line.
fn reason(error: &BuildError) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().take(2).map(str::trim).collect();
    lines.join(" ")
}
