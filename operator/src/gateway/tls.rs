//! The gateway's certificate, kept in one Secret that is read and written by its name, renewed before it expires, and
//! taken over without a restart.

use super::certificate::{Bundle, CertificateError, Facts, Need, make, need};
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, Client, api::PostParams};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

/// Name of the Secret.
pub const SECRET_NAME: &str = "sopwith-gateway-tls";
const CA_CERT: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const CERT: &str = "tls.crt";
const KEY: &str = "tls.key";
/// How often the Secret is written before others who write it are believed to be stubborn.
const TRIES: usize = 5;
/// Longest and shortest time between two looks at the Secret.
const LOOK: (SignedDuration, SignedDuration) = (
    SignedDuration::from_secs(60),
    SignedDuration::from_hours(12),
);

/// The certificate could not be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The API server refused or did not answer.
    #[error("Secret {SECRET_NAME}: {0}")]
    Kube(#[from] kube::Error),
    /// A certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The certificate cannot be served.
    #[error("certificate of the gateway cannot be served: {0}")]
    Serve(String),
    /// Somebody else writes the Secret all the time.
    #[error(
        "Secret {SECRET_NAME} was changed by others {TRIES} times in a row: find out who writes it"
    )]
    Contended,
}

/// The gateway's certificate. Clones share it.
#[derive(Clone)]
pub struct GatewayTls {
    secrets: Api<Secret>,
    namespace: String,
    names: Vec<String>,
    served: Arc<Served>,
}

#[derive(Default)]
struct Served {
    current: RwLock<Option<Current>>,
}

struct Current {
    ca: String,
    key: Arc<CertifiedKey>,
    renew_at: Timestamp,
}

impl GatewayTls {
    /// Reads the Secret of `namespace`, makes what is missing, for a gateway reached through `service`.
    pub async fn open(client: Client, namespace: &str, service: &str) -> Result<Self, TlsError> {
        let tls = Self {
            secrets: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            names: vec![
                format!("{service}.{namespace}.svc"),
                format!("{service}.{namespace}.svc.cluster.local"),
            ],
            served: Arc::default(),
        };
        tls.refresh(Timestamp::now()).await?;
        Ok(tls)
    }

    /// The authority's certificate as PEM, for those who call the gateway.
    pub fn ca_pem(&self) -> String {
        let current = self.served.read();
        current.as_ref().map(|c| c.ca.clone()).unwrap_or_default()
    }

    /// How the gateway serves TLS: always with the newest certificate.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let resolver: Arc<dyn ResolvesServerCert> = self.served.clone();
        server_config(resolver).map_err(|e| TlsError::Serve(e.to_string()))
    }

    /// Renews the certificate when its time has come, for as long as it is polled.
    pub async fn keep_fresh(self) {
        loop {
            let now = Timestamp::now();
            let renew_at = self.served.read().as_ref().map_or(now, |c| c.renew_at);
            let wait = renew_at.duration_since(now).clamp(LOOK.0, LOOK.1);
            tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
            if let Err(error) = self.refresh(Timestamp::now()).await {
                tracing::warn!(%error, "the gateway's certificate could not be looked after");
            }
        }
    }

    /// Reads the Secret, renews what is due, and serves what it holds then.
    async fn refresh(&self, now: Timestamp) -> Result<(), TlsError> {
        for _ in 0..TRIES {
            let there = self.secrets.get_opt(SECRET_NAME).await?;
            let bundle = there.as_ref().map(bundle_of).unwrap_or_default();
            let facts = |pem: &str| Facts::read(pem).ok();
            let (ca, leaf) = (facts(&bundle.ca_cert), facts(&bundle.cert));
            let mut needed = need(ca.as_ref(), leaf.as_ref(), &self.names, now);
            if needed == Need::Nothing {
                match self.serve(&bundle) {
                    Ok(()) => return Ok(()),
                    // Certificates without their keys: as good as none.
                    Err(_) => needed = Need::Both,
                }
            }
            let made = make(&bundle, needed, &self.names, now);
            let made = made.or_else(|_| make(&bundle, Need::Both, &self.names, now))?;
            let written = self.write(there, &made).await;
            match written {
                Ok(()) => {
                    tracing::info!(secret = SECRET_NAME, made = ?needed, "wrote the gateway's certificate");
                    return self.serve(&made);
                }
                // Somebody else was faster: what they wrote counts.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(TlsError::Contended)
    }

    async fn write(&self, there: Option<Secret>, bundle: &Bundle) -> Result<(), kube::Error> {
        let params = PostParams::default();
        if let Some(mut secret) = there {
            // Its resourceVersion makes this fail where somebody else wrote meanwhile.
            secret
                .data
                .get_or_insert_default()
                .append(&mut data(bundle));
            self.secrets.replace(SECRET_NAME, &params, &secret).await?;
            return Ok(());
        }
        let mut secret = Secret {
            data: Some(data(bundle)),
            type_: Some("kubernetes.io/tls".to_owned()),
            ..Secret::default()
        };
        secret.metadata.name = Some(SECRET_NAME.to_owned());
        secret.metadata.namespace = Some(self.namespace.clone());
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        secret.metadata.labels = Some(BTreeMap::from([
            label("app.kubernetes.io/name", "sopwith"),
            label("app.kubernetes.io/component", "gateway"),
        ]));
        self.secrets.create(&params, &secret).await?;
        Ok(())
    }

    fn serve(&self, bundle: &Bundle) -> Result<(), TlsError> {
        let key = Arc::new(certified_key(bundle)?);
        let (ca, leaf) = (Facts::read(&bundle.ca_cert)?, Facts::read(&bundle.cert)?);
        let current = Current {
            ca: bundle.ca_cert.clone(),
            key,
            renew_at: ca.renew_at().min(leaf.renew_at()),
        };
        let served = self.served.current.write();
        *served.unwrap_or_else(PoisonError::into_inner) = Some(current);
        Ok(())
    }
}

impl Served {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Option<Current>> {
        // Nothing that is done under this lock can panic half-way.
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Served")
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.read().as_ref().map(|current| current.key.clone())
    }
}

/// How certificates from a resolver are served.
pub(super) fn server_config(
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

pub(super) fn certified_key(bundle: &Bundle) -> Result<CertifiedKey, TlsError> {
    let refuse = |why: String| TlsError::Serve(why);
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bundle.cert.as_bytes()).collect();
    let certs = certs.map_err(|e| refuse(format!("{CERT}: {e:?}")))?;
    let key = PrivateKeyDer::from_pem_slice(bundle.key.as_bytes());
    // What is wrong with a key is not said in detail: it could tell of its content.
    let key = key.map_err(|_| refuse(format!("{KEY} is no private key in PEM")))?;
    let provider = ring::default_provider();
    CertifiedKey::from_der(certs, key, &provider).map_err(|e| refuse(e.to_string()))
}

fn bundle_of(secret: &Secret) -> Bundle {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes
            .and_then(|b| String::from_utf8(b.0.clone()).ok())
            .unwrap_or_default()
    };
    Bundle {
        ca_cert: text(CA_CERT),
        ca_key: text(CA_KEY),
        cert: text(CERT),
        key: text(KEY),
    }
}

fn data(bundle: &Bundle) -> BTreeMap<String, ByteString> {
    let entry = |key: &str, text: &str| (key.to_owned(), ByteString(text.as_bytes().to_vec()));
    BTreeMap::from([
        entry(CA_CERT, &bundle.ca_cert),
        entry(CA_KEY, &bundle.ca_key),
        entry(CERT, &bundle.cert),
        entry(KEY, &bundle.key),
    ])
}
