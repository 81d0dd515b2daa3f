//! The modules: shared libraries that know how to speak to tokens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use crate::TokenError;

/// A module is initialised once in a process, and stays: threads of its own may run, so it is never unloaded.
static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// The module in a file, ready for use.
pub fn load(path: &Path) -> Result<Pkcs11, TokenError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = loaded.get(path) {
        return Ok(module.clone());
    }
    let failed = |source| TokenError::Module {
        path: path.to_owned(),
        source,
    };
    let module = Pkcs11::new(path).map_err(failed)?;
    let initialized = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
    match initialized {
        // The second is of a module that was loaded by another name.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(failed(error)),
    }
    loaded.insert(path.to_owned(), module.clone());
    Ok(module)
}
