//! TLS to a Postgres server: rustls, with the meaning that libpq gives to each `sslmode`.
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-ssl.html>. Two differences, both to the safer side: without
//! `sslrootcert`, `verify-ca` and `verify-full` use the system's roots; and nothing is taken from `~/.postgresql`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{TlsMode, TlsPlan};

/// What makes encrypted connections by that plan.
///
/// # Errors
/// A file of certificates or keys cannot be used; the message names it.
pub(super) fn connector(plan: &TlsPlan) -> Result<MakeRustlsConnect, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verifier(plan, &provider)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &plan.client {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let certs = certificates(cert, "sslcert")?;
            builder.with_client_auth_cert(certs, private_key(key)?).map_err(|error| {
                format!("sslcert {} and sslkey {} do not belong together: {error}", cert.display(), key.display())
            })?
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

fn verifier(plan: &TlsPlan, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let checks = match (plan.mode, &plan.root_cert) {
        (TlsMode::VerifyFull, _) => Checks::All,
        (TlsMode::VerifyCa, _) => Checks::Chain,
        // As libpq does: roots that are given are used.
        (TlsMode::Require, Some(_)) => Checks::Chain,
        _ => Checks::Nothing,
    };
    if checks == Checks::Nothing {
        return Ok(Arc::new(Verifier { checks, webpki: None, provider: Arc::clone(provider) }));
    }
    let roots = Arc::new(roots(plan.root_cert.as_deref())?);
    let webpki = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|error| error.to_string())?;
    if checks == Checks::All {
        return Ok(webpki);
    }
    Ok(Arc::new(Verifier { checks, webpki: Some(webpki), provider: Arc::clone(provider) }))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in certificates(file, "sslrootcert")? {
                store.add(certificate).map_err(|error| format!("sslrootcert {}: {error}", file.display()))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
        }
    }
    match store.is_empty() {
        false => Ok(store),
        true => Err("the system has no root certificates; install ca-certificates, or give sslrootcert=FILE".into()),
    }
}

fn certificates(file: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("{option} {} cannot be used: {error}", file.display());
    let found = CertificateDer::pem_file_iter(file).map_err(|error| cannot(&error))?;
    let certificates: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| cannot(&error))?;
    match certificates.is_empty() {
        false => Ok(certificates),
        true => Err(cannot(&"it holds no certificate in PEM")),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("sslkey {} cannot be used: {error}", file.display());
    let mode = std::fs::metadata(file).map_err(|error| cannot(&error))?.mode();
    if mode & 0o037 != 0 {
        return Err(cannot(&"others may read it; chmod 0600 makes it private"));
    }
    PrivateKeyDer::from_pem_file(file).map_err(|error| cannot(&error))
}

/// How much of a server's certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checks {
    /// Nothing: the connection is encrypted, and to whoever answers.
    Nothing,
    /// That it comes from a trusted root.
    Chain,
    /// That, and that it is for this host.
    All,
}

/// What stands in for a full check in the weaker modes. Where nothing is checked, not even the signature is: whoever
/// answers is taken, and old certificates, which rustls cannot read, are taken too.
#[derive(Debug)]
struct Verifier {
    checks: Checks,
    webpki: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Has a signature verified by the algorithms that are known, where anything is checked at all.
    fn verify_signature(
        &self,
        verify: impl FnOnce(&WebPkiSupportedAlgorithms) -> Result<HandshakeSignatureValid, TlsError>,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        match self.checks {
            Checks::Nothing => Ok(HandshakeSignatureValid::assertion()),
            Checks::Chain | Checks::All => verify(&self.provider.signature_verification_algorithms),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(webpki) = &self.webpki else { return Ok(ServerCertVerified::assertion()) };
        match webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is looked at before the name.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.checks == Checks::Chain => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.verify_signature(|known| rustls::crypto::verify_tls12_signature(message, cert, dss, known))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.verify_signature(|known| rustls::crypto::verify_tls13_signature(message, cert, dss, known))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
