//! `cargo xtask corpus limits`: a kernel whose limits are raised makes the images that the stock kernel makes.
//!
//! The stock kernel, Linux without our patches, verifies for itself, as any target. The verifier kernel does for devices with
//! that kernel, as a second build, and with limits far above Linux's. Images have no addresses in them, and both are for the
//! same build: so what both accept must be the same, byte for byte.

use preverify_pipeline::{BuildError, Limits, Object, Verified, VerifiedProgram, Verifier};
use preverify_target::Target;

use super::Extent;
use super::run::{RunCorpusError, TIME_LIMIT, blamed, chosen, first_line, read};
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
        let words = counts.compare(by_stock, by_raised);
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
        stock: Result<Verified, String>,
        raised: Result<Verified, String>,
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
        for (program, loaded) in stock.programs.iter().zip(&stock.loaded.programs) {
            let function = &loaded.function;
            let mut candidates = raised.programs.iter().zip(&raised.loaded.programs);
            // Only what both carry is compared.
            let Some((counterpart, _)) = candidates.find(|(_, other)| other.function == *function)
            else {
                continue;
            };
            if images(program) == images(counterpart) {
                same += 1;
                self.images += program.images().count();
            } else {
                others.push(function.as_str());
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

/// All bytes of a program's images.
fn images(program: &VerifiedProgram) -> Vec<(&[u8], &[u8])> {
    program
        .images()
        .map(|(_, image)| (&*image.sections.image, &*image.sections.symbols))
        .collect()
}

/// One of the two targets.
struct Side<'a> {
    target: &'a Target,
    limits: Limits,
    verifier: Option<Verifier<'a>>,
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
    fn verify(&mut self, object: &mut Object) -> Result<Verified, String> {
        loop {
            let error = match self.attempt(object) {
                Ok(verified) => return Ok(verified),
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
                return Err(first_line(&error));
            }
        }
    }

    fn attempt(&mut self, object: &Object) -> Result<Verified, BuildError> {
        let verifier = match &mut self.verifier {
            Some(verifier) => verifier,
            none => none.insert(Verifier::start(self.target, self.limits)?),
        };
        verifier.verify(object, &mut |_| {})
    }
}
