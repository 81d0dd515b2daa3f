//! A program to probe: an ELF file with one function that has a name, so small that it is written here.

use preverify_abi::kinds::Architecture;

/// Where the program is loaded.
const BASE: u64 = 0x40_0000;
const HEADER: u64 = 64;
const SEGMENT: u64 = 56;
const SECTION: u64 = 64;
const SYMBOL: u64 = 24;

/// Where its code is, in the file.
const CODE: u64 = HEADER + SEGMENT;
/// Where its function is, in the file: a test says it in hexadecimal.
const FUNCTION_OFFSET: u64 = CODE + 32;
const _: () = assert!(FUNCTION_OFFSET == 0x98);
/// What its function is called: tests say so, too.
const FUNCTION: &str = "target_function";
/// How often it calls it.
pub const CALLS: u64 = 2;

#[rustfmt::skip]
const X86_64: [u8; 36] = [
    0xe8, 27, 0, 0, 0,      // call target_function
    0xe8, 22, 0, 0, 0,      // call target_function
    0xb8, 60, 0, 0, 0,      // mov $SYS_exit, %eax
    0x31, 0xff,             // xor %edi, %edi
    0x0f, 0x05,             // syscall
    0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
    0x8d, 0x47, 0x01, 0xc3, // target_function: lea 1(%rdi), %eax; ret
];

#[rustfmt::skip]
const ARM64: [u8; 36] = [
    0x08, 0x00, 0x00, 0x94, // bl target_function
    0x07, 0x00, 0x00, 0x94, // bl target_function
    0xa8, 0x0b, 0x80, 0xd2, // mov x8, #SYS_exit
    0x00, 0x00, 0x80, 0xd2, // mov x0, #0
    0x01, 0x00, 0x00, 0xd4, // svc #0
    0x00, 0x00, 0x20, 0xd4, 0x00, 0x00, 0x20, 0xd4, 0x00, 0x00, 0x20, 0xd4,
    0xc0, 0x03, 0x5f, 0xd6, // target_function: ret
];

/// The file.
pub fn program(arch: Architecture) -> Vec<u8> {
    let (machine, instructions) = match arch {
        Architecture::ARM64 => (183, ARM64),
        _ => (62, X86_64),
    };
    // Names of sections and symbols, in one table.
    let mut names = b"\0.text\0.symtab\0.strtab\0".to_vec();
    let function_name = u32::try_from(names.len()).unwrap();
    names.extend(FUNCTION.as_bytes());
    names.push(0);
    let code_size = instructions.len() as u64;
    let symbols = (CODE + code_size).next_multiple_of(8);
    let name_table = symbols + 2 * SYMBOL;
    let sections = (name_table + names.len() as u64).next_multiple_of(8);

    let mut file = File(Vec::new());
    file.bytes(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.u16s(&[2, machine]); // ET_EXEC
    file.u32s(&[1]);
    file.u64s(&[BASE + CODE, HEADER, sections]);
    file.u32s(&[0]);
    file.u16s(&[64, 56, 1, 64, 4, 3]);
    // PT_LOAD, readable and executable.
    file.u32s(&[1, 5]);
    let loaded = CODE + code_size;
    file.u64s(&[0, BASE, BASE, loaded, loaded, 0x1000]);
    file.bytes(&instructions);

    file.pad_to(symbols + SYMBOL);
    file.u32s(&[function_name]);
    file.bytes(&[0x12, 0]); // STB_GLOBAL, STT_FUNC
    file.u16s(&[1]);
    file.u64s(&[BASE + FUNCTION_OFFSET, 4]);
    file.bytes(&names);

    file.pad_to(sections + SECTION);
    let mut section = |name, kind, flags, address, offset, size, link, info, entry_size| {
        file.u32s(&[name, kind]);
        file.u64s(&[flags, address, offset, size]);
        file.u32s(&[link, info]);
        file.u64s(&[1, entry_size]);
    };
    section(1, 1, 6, BASE + CODE, CODE, code_size, 0, 0, 0);
    section(7, 2, 0, 0, symbols, 2 * SYMBOL, 3, 1, SYMBOL);
    section(15, 3, 0, 0, name_table, names.len() as u64, 0, 0, 0);
    file.0
}

struct File(Vec<u8>);

impl File {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    fn u16s(&mut self, numbers: &[u16]) {
        self.0.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
    }

    fn u32s(&mut self, numbers: &[u32]) {
        self.0.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
    }

    fn u64s(&mut self, numbers: &[u64]) {
        self.0.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
    }

    fn pad_to(&mut self, size: u64) {
        self.0.resize(usize::try_from(size).unwrap(), 0);
    }
}
