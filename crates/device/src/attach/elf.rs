//! Functions of user programs and libraries, for uprobes.

use std::env::consts::ARCH;
use std::fs::File;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection, ObjectSymbol, ReadCache, SymbolKind};

use super::AttachError;

/// The file: a path as it is, a name where programs or libraries lie.
pub fn find(name: &str) -> Result<PathBuf, AttachError> {
    if name.contains('/') {
        return Ok(name.into());
    }
    let folders = folders(name);
    folders
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| AttachError::NoFile {
            name: name.to_owned(),
            searched: folders.join(" nor in "),
        })
}

fn folders(name: &str) -> Vec<String> {
    if name.ends_with(".so") || name.contains(".so.") {
        ["/lib", "/usr/lib"]
            .iter()
            .flat_map(|base| {
                let by_architecture = format!("{base}/{ARCH}-linux-gnu");
                [by_architecture, format!("{base}64"), (*base).to_owned()]
            })
            .collect()
    } else {
        ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
            .map(ToOwned::to_owned)
            .to_vec()
    }
}

/// Where a function starts in its file.
pub fn offset_of(path: &Path, function: &str) -> Result<u64, AttachError> {
    let file = File::open(path).map_err(|source| AttachError::File {
        path: path.to_owned(),
        source,
    })?;
    // Of what may be a large file, only the symbols are read.
    let parts = ReadCache::new(file);
    let file = object::File::parse(&parts).map_err(|source| AttachError::Elf {
        path: path.to_owned(),
        source,
    })?;
    file.symbols()
        .chain(file.dynamic_symbols())
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
        .filter(|symbol| symbol.name() == Ok(function))
        .find_map(|symbol| {
            let section = file.section_by_index(symbol.section_index()?).ok()?;
            let (start, _) = section.file_range()?;
            start.checked_add(symbol.address().checked_sub(section.address())?)
        })
        .ok_or_else(|| AttachError::NoSymbol {
            path: path.to_owned(),
            function: function.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A function whose place in this very program is known otherwise.
    #[expect(unsafe_code, reason = "no other function has this name")]
    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn preverify_test_function() -> u32 {
        std::hint::black_box(0x5eed_cafe)
    }

    #[test]
    fn a_function_is_found_where_it_is_mapped_from() {
        let path = std::env::current_exe().unwrap();
        let offset = offset_of(&path, "preverify_test_function").unwrap();
        let address = preverify_test_function as *const () as u64;
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let expected = maps
            .lines()
            .find_map(|line| {
                let mut words = line.split_whitespace();
                let (start, end) = words.next()?.split_once('-')?;
                let number = |text| u64::from_str_radix(text, 16).ok();
                let (start, end) = (number(start)?, number(end)?);
                let mapped = number(words.nth(1)?)?;
                (start..end)
                    .contains(&address)
                    .then(|| address - start + mapped)
            })
            .unwrap();
        assert_eq!(offset, expected);
        assert_eq!(preverify_test_function(), 0x5eed_cafe);
    }

    #[test]
    fn what_is_not_there_is_told() {
        let path = std::env::current_exe().unwrap();
        assert!(matches!(
            offset_of(&path, "no_such_function"),
            Err(AttachError::NoSymbol { .. })
        ));
        assert!(matches!(
            offset_of(Path::new("/proc/self/status"), "main"),
            Err(AttachError::Elf { .. })
        ));
        assert!(matches!(
            find("no-such-library.so.9"),
            Err(AttachError::NoFile { .. })
        ));
        assert_eq!(find("/a/b").unwrap(), Path::new("/a/b"));
        assert!(find("sh").unwrap().is_absolute());
    }
}
