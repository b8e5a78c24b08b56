//! Certificates: when new ones are needed, and how they are made. No clock, no client.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How long a certificate of the gateway is valid.
const LEAF_DAYS: i32 = 365;
/// How long the authority is valid.
const CA_DAYS: i32 = 3650;

/// Certificates and keys as PEM, as the Secret keeps them.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Bundle {
    /// The authority.
    pub(super) ca_cert: String,
    /// Its key.
    pub(super) ca_key: String,
    /// The gateway's certificate.
    pub(super) cert: String,
    /// Its key.
    pub(super) key: String,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Valid from.
    pub(super) not_before: Timestamp,
    /// Valid to.
    pub(super) not_after: Timestamp,
    /// For these names.
    pub(super) names: Vec<String>,
}

/// What has to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// A certificate of the gateway, signed by the authority that is there.
    Leaf,
    /// An authority and a certificate.
    Both,
}

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("certificate of the gateway: {0}")]
pub struct CertificateError(String);

impl From<rcgen::Error> for CertificateError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

impl Facts {
    /// Reads them from the first certificate of a PEM.
    pub(super) fn read(pem: &str) -> Result<Self, CertificateError> {
        let broken = |why: String| CertificateError(why);
        let der = CertificateDer::from_pem_slice(pem.as_bytes());
        let der = der.map_err(|e| broken(format!("{e:?}")))?;
        let (_, cert) = X509Certificate::from_der(&der).map_err(|e| broken(e.to_string()))?;
        let at = |seconds| Timestamp::from_second(seconds).map_err(|e| broken(e.to_string()));
        let names = cert.subject_alternative_name();
        let names = names.map_err(|e| broken(e.to_string()))?;
        let names = names.map(|ext| ext.value.general_names.iter()).into_iter();
        let dns = names.flatten().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        Ok(Self {
            not_before: at(cert.validity().not_before.timestamp())?,
            not_after: at(cert.validity().not_after.timestamp())?,
            names: dns.collect(),
        })
    }

    /// From when on less than a third of its life is left.
    pub(super) fn renew_at(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        self.not_after - life / 3
    }
}

/// Decides what has to be made at `now`, for a gateway that answers to `names`. What cannot be read is as if it were not there.
pub(super) fn need(
    ca: Option<&Facts>,
    leaf: Option<&Facts>,
    names: &[String],
    now: Timestamp,
) -> Need {
    let lasting = |facts: &&Facts| facts.not_before <= now && now < facts.renew_at();
    let Some(ca) = ca.filter(lasting) else {
        return Need::Both;
    };
    let fits = |leaf: &&Facts| names.iter().all(|name| leaf.names.contains(name));
    match leaf.filter(lasting).filter(fits) {
        Some(leaf) if leaf.not_after <= ca.not_after => Need::Nothing,
        _ => Need::Leaf,
    }
}

/// Makes what is needed; keeps the rest of what is there.
pub(super) fn make(
    there: &Bundle,
    need: Need,
    names: &[String],
    now: Timestamp,
) -> Result<Bundle, CertificateError> {
    let mut bundle = there.clone();
    if need == Need::Both {
        (bundle.ca_cert, bundle.ca_key) = make_ca(now)?;
    }
    if need != Need::Nothing {
        (bundle.cert, bundle.key) = make_leaf(&bundle, names, now)?;
    }
    Ok(bundle)
}

fn make_ca(now: Timestamp) -> Result<(String, String), CertificateError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let name = format!("sopwith-gateway-ca {}", now.as_second());
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    (params.not_before, params.not_after) = validity(now, CA_DAYS)?;
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn make_leaf(
    ca: &Bundle,
    names: &[String],
    now: Timestamp,
) -> Result<(String, String), CertificateError> {
    let issuer = Issuer::from_ca_cert_pem(&ca.ca_cert, KeyPair::from_pem(&ca.ca_key)?)?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "sopwith-gateway");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = validity(now, LEAF_DAYS)?;
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}

/// From an hour ago, so that clocks may differ.
fn validity(
    now: Timestamp,
    days: i32,
) -> Result<(time::OffsetDateTime, time::OffsetDateTime), CertificateError> {
    let from = now - SignedDuration::from_hours(1);
    let to = now + DAY * days;
    let at = |t: Timestamp| {
        time::OffsetDateTime::from_unix_timestamp(t.as_second())
            .map_err(|e| CertificateError(e.to_string()))
    };
    Ok((at(from)?, at(to)?))
}
