//! A repository over ssh.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use russh::{
    Channel, ChannelMsg, Preferred,
    client::{self, Handle, Msg},
    keys::{PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, decode_secret_key},
};
use secrecy::{ExposeSecret, SecretString};

use super::{
    Fault,
    advert::{self, Advertisement},
    known_hosts,
    pkt::plain,
    remote::{Service, Sink},
};

/// Longest time until a connection stands and both sides know each other.
const CONNECT: Duration = Duration::from_secs(30);
/// Longest silence of a server.
const SILENCE: Duration = Duration::from_secs(120);
/// Most bytes that are kept of what the server says beside its answer.
const MAX_SAID: usize = 4096;

/// Where a repository is, and who asks.
pub(super) struct Ssh {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    /// As the server's shell gets it.
    pub(super) path: String,
    pub(super) key: SecretString,
    pub(super) known_hosts: PathBuf,
}

/// A service at work on the server.
pub(super) struct Session {
    channel: Channel<Msg>,
    said: Vec<u8>,
    _connection: Handle<Check>,
}

/// Compares the host's key with those that are known.
struct Check {
    known: Vec<PublicKey>,
    refused: Arc<Mutex<Option<String>>>,
}

impl client::Handler for Check {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        found: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let why = match found {
            PublicKeyOrCertificate::PublicKey { key, .. }
                if self
                    .known
                    .iter()
                    .any(|known| known.key_data() == key.key_data()) =>
            {
                return Ok(true);
            }
            PublicKeyOrCertificate::PublicKey { key, .. } => format!(
                "the host has the key {}, which is not in known_hosts of the policy's Secret: somebody else may answer in its place",
                key.fingerprint(russh::keys::HashAlg::Sha256)
            ),
            PublicKeyOrCertificate::Certificate(_) => {
                "the host shows a certificate, which is not supported".to_owned()
            }
        };
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        Ok(false)
    }
}

impl Ssh {
    /// Starts a service and reads what the server has.
    pub(super) async fn open(&self, service: Service) -> Result<(Session, Advertisement), Fault> {
        let connection = tokio::time::timeout(CONNECT, self.connected());
        let connection = connection.await.map_err(|_| {
            Fault::Away(format!(
                "the server did not let us in within {} s",
                CONNECT.as_secs()
            ))
        })??;
        let channel = connection
            .channel_open_session()
            .await
            .map_err(|error| away(&error))?;
        let command = format!("{} '{}'", service.as_str(), self.path);
        channel
            .exec(true, command)
            .await
            .map_err(|error| away(&error))?;
        let mut session = Session {
            channel,
            said: Vec::new(),
            _connection: connection,
        };
        let mut reading = advert::Reading::default();
        while let Some(piece) = session.piece().await? {
            if reading.feed(&piece)? {
                return Ok((session, reading.finish()?));
            }
        }
        Err(session.ended())
    }

    /// A connection to the host that is known, as the user that the key belongs to.
    async fn connected(&self) -> Result<Handle<Check>, Fault> {
        let known = known_hosts::keys(&self.known_hosts, &self.host, self.port)?;
        let key =
            decode_secret_key(self.key.expose_secret(), None).map_err(|error| unusable(&error))?;
        let mut algorithms: Vec<_> = known.iter().map(PublicKey::algorithm).collect();
        algorithms.dedup();
        let config = client::Config {
            inactivity_timeout: Some(SILENCE),
            nodelay: true,
            // The host is asked for a key that can be compared.
            preferred: Preferred {
                key: algorithms.into(),
                ..Preferred::default()
            },
            ..client::Config::default()
        };
        let refused = Arc::new(Mutex::new(None));
        let check = Check {
            known,
            refused: Arc::clone(&refused),
        };
        let place = (self.host.as_str(), self.port);
        let connected = client::connect(Arc::new(config), place, check).await;
        let refused = refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(why) = refused {
            return Err(Fault::Credential(why));
        }
        let mut connection = connected.map_err(|error| away(&error))?;
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        let let_in = connection.authenticate_publickey(&self.user, key).await;
        if let_in.map_err(|error| away(&error))?.success() {
            return Ok(connection);
        }
        Err(Fault::Credential(format!(
            "the server does not take the key of the policy's Secret for the user {}; add its public key there, or renew it",
            self.user
        )))
    }
}

impl Session {
    /// Sends a request and hands the answer over as it comes.
    pub(super) async fn exchange(
        mut self,
        request: Vec<u8>,
        sink: &mut Sink<'_>,
    ) -> Result<(), Fault> {
        self.channel
            .data(&request[..])
            .await
            .map_err(|error| away(&error))?;
        self.channel.eof().await.map_err(|error| away(&error))?;
        while let Some(piece) = self.piece().await? {
            sink(&piece)?;
        }
        Ok(())
    }

    /// The next piece of the answer; none at its end.
    async fn piece(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        loop {
            match self.channel.wait().await {
                Some(ChannelMsg::Data { data }) => return Ok(Some(data.to_vec())),
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    let room = MAX_SAID - self.said.len();
                    self.said.extend(data.iter().take(room));
                }
                Some(ChannelMsg::Failure) => {
                    return Err(Fault::Refused(
                        "it does not run Git's services for this key".into(),
                    ));
                }
                // How the service ended is told by what it sent.
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Why a service ended before it said what it has.
    fn ended(self) -> Fault {
        let said = plain(&self.said);
        if said.is_empty() {
            Fault::Away("the connection ended before the server answered".into())
        } else {
            Fault::Missing(format!("the server says: {said}"))
        }
    }
}

fn away(error: &russh::Error) -> Fault {
    Fault::Away(format!("the server cannot be reached: {error}"))
}

/// A key that cannot be used. The text has nothing of the key.
fn unusable(error: &russh::keys::Error) -> Fault {
    let why = match error {
        russh::keys::Error::KeyIsEncrypted => "is encrypted; take a key without a passphrase",
        _ => "is not of a supported form; make one with `ssh-keygen -t ed25519`",
    };
    Fault::Credential(format!("ssh-privatekey of the policy's Secret {why}"))
}
