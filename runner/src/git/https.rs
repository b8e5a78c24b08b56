//! A repository over https, through the runner's own HTTP client.

use std::time::Duration;

use futures::StreamExt;
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use secrecy::ExposeSecret;
use sopwith_crds::agent_run::KeyRef;

use super::{
    Fault,
    advert::{self, Advertisement},
    pkt::plain,
    remote::{Credential, Service, Sink},
};
use crate::llm::transport::{Places, chain, client_builder};

/// Longest silence of a server.
const SILENCE: Duration = Duration::from_secs(120);

/// A repository.
pub(super) struct Https {
    client: Client,
    url: String,
    credential: Credential,
}

impl Https {
    pub(super) fn new(
        url: String,
        authorities: Option<&KeyRef>,
        credential: Credential,
        places: &Places,
    ) -> Result<Self, Fault> {
        // Some servers answer only who is called as Git is.
        let name = format!("git/2.0 (sopwith {})", env!("CARGO_PKG_VERSION"));
        let client = client_builder(authorities, places)
            .map_err(Fault::Credential)?
            .https_only(true)
            .user_agent(name)
            .read_timeout(SILENCE)
            .build()
            .map_err(|error| Fault::Away(format!("cannot set up HTTP: {}", chain(&error))))?;
        Ok(Self {
            client,
            url,
            credential,
        })
    }

    /// What the server has.
    pub(super) async fn advertised(&self, service: Service) -> Result<Advertisement, Fault> {
        let name = service.as_str();
        let request = self
            .client
            .get(format!("{}/info/refs?service={name}", self.url));
        let answer = self.answer(request, service, "advertisement").await?;
        let mut pieces = answer.bytes_stream();
        let mut reading = advert::Reading::default();
        while let Some(piece) = pieces.next().await {
            if reading.feed(&piece.map_err(|error| away(&error.without_url()))?)? {
                return reading.finish();
            }
        }
        Err(Fault::Away("the server's answer was cut off".into()))
    }

    /// Sends a request and hands the answer over as it comes.
    pub(super) async fn exchange(
        &self,
        service: Service,
        request: Vec<u8>,
        sink: &mut Sink<'_>,
    ) -> Result<(), Fault> {
        let name = service.as_str();
        let request = self
            .client
            .post(format!("{}/{name}", self.url))
            .header(
                header::CONTENT_TYPE,
                format!("application/x-{name}-request"),
            )
            .header(header::ACCEPT, format!("application/x-{name}-result"))
            .body(request);
        let mut pieces = self
            .answer(request, service, "result")
            .await?
            .bytes_stream();
        while let Some(piece) = pieces.next().await {
            sink(&piece.map_err(|error| away(&error.without_url()))?)?;
        }
        Ok(())
    }

    async fn answer(
        &self,
        request: RequestBuilder,
        service: Service,
        kind: &str,
    ) -> Result<Response, Fault> {
        let request = match &self.credential {
            Credential::Password { user, password } => {
                request.basic_auth(user, Some(password.expose_secret()))
            }
            Credential::Token(token) => request.bearer_auth(token.expose_secret()),
            Credential::None | Credential::Key { .. } => request,
        };
        let answer = request
            .send()
            .await
            .map_err(|error| away(&error.without_url()))?;
        if !answer.status().is_success() {
            return Err(self.refused(&answer, service));
        }
        let found = answer.headers().get(header::CONTENT_TYPE);
        let found = found
            .map(|value| plain(value.as_bytes()))
            .unwrap_or_default();
        if found == format!("application/x-{}-{kind}", service.as_str()) {
            return Ok(answer);
        }
        Err(Fault::Missing(format!(
            "there is no Git repository at this address: it answers with content of type \"{found}\""
        )))
    }

    fn refused(&self, answer: &Response, service: Service) -> Fault {
        let status = answer.status();
        let code = status.as_u16();
        let anonymous = matches!(self.credential, Credential::None);
        match status {
            StatusCode::UNAUTHORIZED if anonymous => Fault::Credential(format!(
                "the server asks for a credential (HTTP {code}); name a Secret with the key password or token in secretRef of the policy's \
                 git entry"
            )),
            StatusCode::UNAUTHORIZED => Fault::Credential(format!(
                "the server does not take the credential of the policy's Secret (HTTP {code}); renew it"
            )),
            StatusCode::FORBIDDEN => Fault::Credential(format!(
                "the credential of the policy may not {} the repository (HTTP {code}); give it the right, or name another",
                service.verb()
            )),
            StatusCode::NOT_FOUND | StatusCode::GONE => Fault::Missing(format!(
                "there is no such repository, or the credential of the policy may not see it (HTTP {code})"
            )),
            status if status.is_redirection() => {
                let place = answer.headers().get(header::LOCATION);
                let place = place
                    .map(|place| plain(place.as_bytes()))
                    .unwrap_or_default();
                let place = place.split("/info/refs").next().unwrap_or_default();
                Fault::Missing(format!(
                    "the server sends to another address (HTTP {code}), and the credential is not carried there; write \"{place}\" as the url, \
                     if it is right"
                ))
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Fault::Away(format!("the server is busy (HTTP {code})"))
            }
            status if status.is_server_error() => {
                Fault::Away(format!("the server is ill (HTTP {code})"))
            }
            _ => Fault::Refused(format!("HTTP {code}")),
        }
    }
}

fn away(error: &reqwest::Error) -> Fault {
    if let Some(why) = untrusted(error) {
        return Fault::Credential(format!(
            "the certificate of the server is not trusted ({why}); name the authority that signed it in caRef of the policy's git entry"
        ));
    }
    Fault::Away(format!("the server cannot be reached: {}", chain(error)))
}

/// Why the certificate of a server was refused, if that is what happened.
fn untrusted(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
        return Some(why.to_string());
    }
    // The source of an I/O error is what its content comes from, not its content.
    let within = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    match within {
        Some(content) => untrusted(content),
        None => untrusted(error.source()?),
    }
}
