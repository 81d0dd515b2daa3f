//! A token: found, opened, and looked through for a key and its certificate.

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::object::{
    Attribute, AttributeType, CertificateType, KeyType, ObjectClass, ObjectHandle,
};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use preverify_bundle::Certificate;

use crate::uri::{self, Uri};
use crate::{TokenError, modules, pin};

/// The curve P-256 as CKA_EC_PARAMS has it: its object identifier in DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// A token that a URI names, and what opens it. It need not be there always.
pub struct Token {
    module: Pkcs11,
    uri: Uri,
    pin: Option<AuthPin>,
}

/// A private key in a session that was logged in. Not for two threads at the same time.
pub struct OpenKey {
    pub session: Session,
    pub handle: ObjectHandle,
    pub kind: Kind,
    /// Whether the PIN is asked for with each signature.
    pub always_authenticate: bool,
    label: Vec<u8>,
    id: Vec<u8>,
}

/// Keys that can sign here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rsa,
    EcdsaP256,
}

impl Token {
    /// Loads the module. The PIN is read once: what it is read from may be gone later.
    pub fn load(uri: Uri) -> Result<Self, TokenError> {
        let path = uri.module_path.as_ref();
        let path = path.ok_or_else(|| TokenError::NoModule(uri.name.clone()))?;
        let pin = pin::read(uri.pin.as_ref())?;
        let module = modules::load(path)?;
        Ok(Self { module, uri, pin })
    }

    /// What the key is called; no secret is in it.
    pub fn name(&self) -> &str {
        &self.uri.name
    }

    /// Opens a session, logs in, and finds the private key.
    pub fn open_key(&self) -> Result<OpenKey, TokenError> {
        let (slot, info) = self.find()?;
        let session = self.said(self.module.open_ro_session(slot))?;
        if info.login_required() {
            if self.pin.is_none() && !info.protected_authentication_path() {
                return Err(TokenError::NoPin(name_of(&info)));
            }
            match session.login(UserType::User, self.pin.as_ref()) {
                // Whoever else in this process uses the token.
                Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
                outcome => self.accepted(outcome)?,
            }
        }
        self.find_key(session)
    }

    /// Says who it is once more, for one signature.
    pub fn authenticate(&self, session: &Session) -> Result<(), TokenError> {
        self.accepted(session.login(UserType::ContextSpecific, self.pin.as_ref()))
    }

    /// All certificates in the token with the key's CKA_ID.
    pub fn certificates(&self, key: &OpenKey) -> Result<Vec<Certificate>, TokenError> {
        let template = [
            Attribute::Class(ObjectClass::CERTIFICATE),
            Attribute::CertificateType(CertificateType::X_509),
            Attribute::Id(key.id.clone()),
        ];
        let mut certificates = Vec::new();
        for object in self.said(key.session.find_objects(&template))? {
            let attributes = key.session.get_attributes(object, &[AttributeType::Value]);
            for attribute in self.said(attributes)? {
                if let Attribute::Value(der) = attribute {
                    certificates.push(Certificate::from_der(&der)?);
                }
            }
        }
        if certificates.is_empty() {
            return Err(TokenError::NoCertificate(key.name()));
        }
        Ok(certificates)
    }

    /// What a call of the module has come to.
    pub fn said<T>(&self, outcome: Result<T, Error>) -> Result<T, TokenError> {
        outcome.map_err(|source| TokenError::Failed {
            key: self.uri.name.clone(),
            source,
        })
    }

    /// The only token that fits.
    fn find(&self) -> Result<(Slot, TokenInfo), TokenError> {
        let mut tokens = Vec::new();
        for slot in self.said(self.module.get_slots_with_token())? {
            match self.module.get_token_info(slot) {
                Ok(info) if info.token_initialized() => tokens.push((slot, info)),
                // Empty, of another kind, or just pulled out: it has no key.
                Ok(_)
                | Err(Error::Pkcs11(RvError::TokenNotPresent | RvError::TokenNotRecognized, _)) => {
                }
                Err(error) => return self.said(Err(error)),
            }
        }
        let (mut fitting, others): (Vec<_>, Vec<_>) = tokens
            .into_iter()
            .partition(|(slot, info)| self.fits(*slot, info));
        match (fitting.pop(), fitting.is_empty()) {
            (Some(token), true) => Ok(token),
            (Some(token), false) => Err(TokenError::SeveralTokens {
                key: self.uri.name.clone(),
                found: list(fitting.iter().chain([&token])),
            }),
            (None, _) => Err(TokenError::NoToken {
                key: self.uri.name.clone(),
                found: list(&others),
            }),
        }
    }

    fn fits(&self, slot: Slot, info: &TokenInfo) -> bool {
        let is = |expected: &Option<String>, found: &str| {
            expected.as_ref().is_none_or(|expected| expected == found)
        };
        is(&self.uri.token, info.label())
            && is(&self.uri.serial, info.serial_number())
            && is(&self.uri.manufacturer, info.manufacturer_id())
            && is(&self.uri.model, info.model())
            && self.uri.slot_id.is_none_or(|id| id == slot.id())
    }

    /// The only private key that fits.
    fn find_key(&self, session: Session) -> Result<OpenKey, TokenError> {
        let private = Attribute::Class(ObjectClass::PRIVATE_KEY);
        let mut template = vec![private.clone()];
        let label = self.uri.object.as_ref();
        template.extend(label.map(|label| Attribute::Label(label.clone().into())));
        template.extend(self.uri.id.clone().map(Attribute::Id));
        let found = self.said(session.find_objects(&template))?;
        match found[..] {
            [handle] => self.describe(session, handle),
            [] => {
                let all = self.said(session.find_objects(&[private]))?;
                Err(TokenError::NoKey {
                    key: self.uri.name.clone(),
                    found: self.names(&session, &all)?,
                })
            }
            _ => Err(TokenError::SeveralKeys {
                key: self.uri.name.clone(),
                found: self.names(&session, &found)?,
            }),
        }
    }

    fn describe(&self, session: Session, handle: ObjectHandle) -> Result<OpenKey, TokenError> {
        const ASKED: [AttributeType; 5] = [
            AttributeType::KeyType,
            AttributeType::EcParams,
            AttributeType::AlwaysAuthenticate,
            AttributeType::Label,
            AttributeType::Id,
        ];
        let (mut key_type, mut curve) = (None, None);
        let (mut label, mut id, mut always_authenticate) = (Vec::new(), Vec::new(), false);
        for attribute in self.said(session.get_attributes(handle, &ASKED))? {
            match attribute {
                Attribute::KeyType(found) => key_type = Some(found),
                Attribute::EcParams(found) => curve = Some(found),
                Attribute::AlwaysAuthenticate(found) => always_authenticate = found,
                Attribute::Label(found) => label = found,
                Attribute::Id(found) => id = found,
                _ => {}
            }
        }
        let kind = match key_type {
            Some(KeyType::RSA) => Ok(Kind::Rsa),
            // A token that does not tell the curve is believed: the certificate knows better.
            Some(KeyType::EC) if curve.is_none_or(|curve| curve == P256) => Ok(Kind::EcdsaP256),
            Some(KeyType::EC) => Err("an ECDSA key on another curve".to_owned()),
            Some(other) => Err(format!("one of type {other}")),
            None => Err("one that does not tell its type".to_owned()),
        };
        let kind = kind.map_err(|found| TokenError::Kind {
            key: self.uri.name.clone(),
            found,
        })?;
        Ok(OpenKey {
            session,
            handle,
            kind,
            always_authenticate,
            label,
            id,
        })
    }

    /// What objects are called.
    fn names(&self, session: &Session, objects: &[ObjectHandle]) -> Result<String, TokenError> {
        const ASKED: [AttributeType; 2] = [AttributeType::Label, AttributeType::Id];
        let mut names = Vec::new();
        for &object in objects {
            let (mut label, mut id) = (Vec::new(), Vec::new());
            for attribute in self.said(session.get_attributes(object, &ASKED))? {
                match attribute {
                    Attribute::Label(found) => label = found,
                    Attribute::Id(found) => id = found,
                    _ => {}
                }
            }
            names.push(uri::name_of_object(&label, &id));
        }
        Ok(or_nothing(names))
    }

    /// Whether the token has accepted the PIN.
    fn accepted(&self, outcome: Result<(), Error>) -> Result<(), TokenError> {
        match outcome {
            Err(Error::Pkcs11(
                RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange,
                _,
            )) => Err(TokenError::WrongPin {
                key: self.uri.name.clone(),
                left: self.tries_left(),
            }),
            Err(Error::Pkcs11(RvError::PinLocked, _)) => {
                Err(TokenError::Locked(self.uri.name.clone()))
            }
            other => self.said(other),
        }
    }

    /// What the token says of it. Not all do.
    fn tries_left(&self) -> &'static str {
        match self.find() {
            Ok((_, info)) if info.user_pin_locked() => "It is locked now",
            Ok((_, info)) if info.user_pin_final_try() => "One try is left",
            _ => "After a few it locks itself",
        }
    }
}

impl OpenKey {
    /// What it is called, as precisely as can be.
    fn name(&self) -> String {
        uri::name_of_object(&self.label, &self.id)
    }
}

fn name_of(info: &TokenInfo) -> String {
    uri::name_of_token(info.label(), info.serial_number())
}

fn list<'a>(tokens: impl IntoIterator<Item = &'a (Slot, TokenInfo)>) -> String {
    or_nothing(tokens.into_iter().map(|(_, info)| name_of(info)).collect())
}

fn or_nothing(names: Vec<String>) -> String {
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}
