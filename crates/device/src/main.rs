//! `preverify-load`, the device's command.

fn main() {
    println!("{}", preverify_device::attach::plan::FORMS);
}
