//! TLS 1.3 between keys: each end shows a self-signed certificate and proves that it holds its key.
//!
//! The one place that knows rustls' configuration and its provider: another version or another
//! provider changes this file.

use std::sync::Arc;

use model::NodeId;
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::key::{KeyPair, PUBLIC_KEY_BYTES};

/// Bytes of a certificate that is looked at: ours have about 300. More would be parsed for strangers.
const CERTIFICATE_BYTES_MAX: usize = 4096;

/// The object identifier 1.3.101.112 (Ed25519), in DER without tag and length.
const ED25519_OID: [u8; 3] = [0x2b, 0x65, 0x70];

/// The name in every certificate, for tools that show one. Nobody checks it.
const CERTIFICATE_NAME: &str = "skerry.internal";

/// Which server key a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// This one.
    Key([u8; PUBLIC_KEY_BYTES]),
    /// Any. The caller reads the key after the handshake and must itself find out whose it is.
    Any,
}

impl From<NodeId> for Expect {
    fn from(node: NodeId) -> Self {
        Self::Key(*node.as_bytes())
    }
}

/// Why a certificate chain does not name one Ed25519 key.
#[derive(Debug, thiserror::Error)]
pub enum PeerKeyError {
    /// Not exactly one certificate.
    #[error("{count} certificates were shown, and one is expected")]
    NotOne {
        /// How many.
        count: usize,
    },
    /// It is no certificate, or too large to be looked at.
    #[error("the certificate cannot be read")]
    Malformed,
    /// Its key is of another kind.
    #[error("the certificate's key is not an Ed25519 key")]
    NotEd25519,
}

/// The Ed25519 public key that a peer showed and, when the handshake succeeded, holds.
pub fn peer_public_key(certificates: &[CertificateDer<'_>]) -> Result<[u8; PUBLIC_KEY_BYTES], PeerKeyError> {
    let [certificate] = certificates else {
        return Err(PeerKeyError::NotOne { count: certificates.len() });
    };
    certificate_key(certificate)
}

fn certificate_key(certificate: &CertificateDer<'_>) -> Result<[u8; PUBLIC_KEY_BYTES], PeerKeyError> {
    if certificate.len() > CERTIFICATE_BYTES_MAX {
        return Err(PeerKeyError::Malformed);
    }
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| PeerKeyError::Malformed)?;
    if !rest.is_empty() {
        return Err(PeerKeyError::Malformed);
    }
    let spki = parsed.public_key();
    let key = &spki.subject_public_key;
    if spki.algorithm.algorithm.as_bytes() != ED25519_OID
        || spki.algorithm.parameters.is_some()
        || key.unused_bits != 0
    {
        return Err(PeerKeyError::NotEd25519);
    }
    key.data.as_ref().try_into().map_err(|_| PeerKeyError::NotEd25519)
}

/// A server's configuration: shows `key`, demands a certificate of the client, speaks one of `alpns`.
pub fn server_config(key: &KeyPair, alpns: &[&[u8]]) -> Arc<ServerConfig> {
    let (chain, private) = certificate(key);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has suites for TLS 1.3")
        .with_client_cert_verifier(Arc::new(ByKey { expect: Expect::Any }))
        .with_single_cert(chain, private)
        .expect("the certificate was made of this key");
    config.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// A client's configuration: shows `key`, accepts the server that `expect` names, speaks `alpn`.
pub fn client_config(key: &KeyPair, alpn: &[u8], expect: Expect) -> Arc<ClientConfig> {
    let (chain, private) = certificate(key);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has suites for TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ByKey { expect }))
        .with_client_auth_cert(chain, private)
        .expect("the certificate was made of this key");
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // The name says nothing here, and on the wire it would say who is called.
    config.enable_sni = false;
    Arc::new(config)
}

/// Built here each time: the process-wide default belongs to whoever else uses rustls.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificate(key: &KeyPair) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let pkcs8 = PrivatePkcs8KeyDer::from(key.pkcs8().to_vec());
    let signer = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519)
        .expect("our own PKCS#8 is readable");
    let mut params = rcgen::CertificateParams::new(vec![CERTIFICATE_NAME.to_owned()])
        .expect("the name is a valid DNS name");
    params.distinguished_name.push(rcgen::DnType::CommonName, CERTIFICATE_NAME);
    // RFC 5280 gives this date to certificates that have no end; nobody here looks at dates.
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    let certificate = params.self_signed(&signer).expect("an Ed25519 key signs its own certificate");
    (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(pkcs8))
}

/// Accepts a certificate for its key alone.
#[derive(Debug)]
struct ByKey {
    expect: Expect,
}

impl ByKey {
    fn check(&self, end: &CertificateDer<'_>, between: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if !between.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        let key = certificate_key(end).map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
        match self.expect {
            Expect::Key(wanted) if wanted != key => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Expect::Key(_) | Expect::Any => Ok(()),
        }
    }

    /// Verifies with the very key that `check` compares, so there is no second reading of the
    /// certificate that could differ.
    fn signed(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key =
            certificate_key(certificate).map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(rustls::PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        UnparsedPublicKey::new(&ED25519, key)
            .verify(message, signed.signature())
            .map(|()| HandshakeSignatureValid::assertion())
            .map_err(|_| CertificateError::BadSignature.into())
    }
}

/// Never asked, as the configurations allow TLS 1.3 alone; refused all the same.
fn no_tls12() -> rustls::Error {
    rustls::PeerIncompatible::Tls12NotOfferedOrEnabled.into()
}

impl ServerCertVerifier for ByKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::signed(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for ByKey {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::signed(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConnection, ServerConnection};

    use super::*;

    const ALPN: &[u8] = b"test/1";

    /// Runs a handshake in memory; the first error ends it.
    fn shake(
        client: Arc<ClientConfig>,
        server: Arc<ServerConfig>,
    ) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
        let mut client = ClientConnection::new(client, ServerName::try_from("any.name").unwrap())?;
        let mut server = ServerConnection::new(server)?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok((client, server))
    }

    #[test]
    fn both_ends_learn_the_key_of_the_other() {
        let (a, b) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        for expect in [Expect::from(b.node_id()), Expect::Any] {
            let (client, server) =
                shake(client_config(&a, ALPN, expect), server_config(&b, &[b"other/1", ALPN])).unwrap();
            assert_eq!(peer_public_key(client.peer_certificates().unwrap()).unwrap(), b.public());
            assert_eq!(peer_public_key(server.peer_certificates().unwrap()).unwrap(), a.public());
            assert_eq!(server.alpn_protocol(), Some(ALPN));
            assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        }
    }

    #[test]
    fn another_server_key_than_the_pinned_one_ends_the_handshake() {
        let (a, b, c) =
            (KeyPair::from_seed([1; 32]), KeyPair::from_seed([2; 32]), KeyPair::from_seed([3; 32]));
        let result = shake(client_config(&a, ALPN, Expect::Key(c.public())), server_config(&b, &[ALPN]));
        assert!(matches!(
            result,
            Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        ));
    }

    #[test]
    fn a_client_without_a_certificate_or_a_common_protocol_is_refused() {
        let (a, b) = (KeyPair::from_seed([1; 32]), KeyPair::from_seed([2; 32]));
        let bare = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ByKey { expect: Expect::Any }))
            .with_no_client_auth();
        assert!(matches!(
            shake(Arc::new(bare), server_config(&b, &[ALPN])),
            Err(rustls::Error::NoCertificatesPresented)
        ));
        assert!(shake(client_config(&a, b"other/1", Expect::Any), server_config(&b, &[ALPN])).is_err());
    }

    /// Shows one key's certificate and signs with another's: what a thief of certificates can do.
    fn impostor(shown: &KeyPair, held: &KeyPair) -> Arc<rustls::sign::CertifiedKey> {
        let (chain, _) = certificate(shown);
        let (_, private) = certificate(held);
        let signer = provider().key_provider.load_private_key(private).unwrap();
        Arc::new(rustls::sign::CertifiedKey::new(chain, signer))
    }

    #[derive(Debug)]
    struct Shows(Arc<rustls::sign::CertifiedKey>);

    impl rustls::client::ResolvesClientCert for Shows {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    impl rustls::server::ResolvesServerCert for Shows {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    #[test]
    fn showing_a_certificate_without_holding_its_key_is_refused_on_both_ends() {
        let (a, b, thief) =
            (KeyPair::from_seed([1; 32]), KeyPair::from_seed([2; 32]), KeyPair::from_seed([3; 32]));
        let bad = rustls::Error::InvalidCertificate(CertificateError::BadSignature);

        let mut client = ClientConfig::clone(&client_config(&a, ALPN, Expect::Any));
        client.client_auth_cert_resolver = Arc::new(Shows(impostor(&a, &thief)));
        assert_eq!(shake(Arc::new(client), server_config(&b, &[ALPN])).err(), Some(bad.clone()));

        let mut server = ServerConfig::clone(&server_config(&b, &[ALPN]));
        server.cert_resolver = Arc::new(Shows(impostor(&b, &thief)));
        let client = client_config(&a, ALPN, Expect::Key(b.public()));
        assert_eq!(shake(client, Arc::new(server)).err(), Some(bad));
    }

    #[test]
    fn only_one_whole_ed25519_certificate_names_a_key() {
        let key = KeyPair::from_seed([4; 32]);
        let (chain, _) = certificate(&key);
        assert_eq!(peer_public_key(&chain).unwrap(), key.public());
        assert!(matches!(peer_public_key(&[]), Err(PeerKeyError::NotOne { count: 0 })));
        let twice = [chain[0].clone(), chain[0].clone()];
        assert!(matches!(peer_public_key(&twice), Err(PeerKeyError::NotOne { count: 2 })));
        for cut in 0..chain[0].len() {
            assert!(peer_public_key(&[CertificateDer::from(&chain[0][..cut])]).is_err());
        }
        let longer = [chain[0].as_ref(), &[0]].concat();
        assert!(matches!(peer_public_key(&[longer.into()]), Err(PeerKeyError::Malformed)));
        assert!(matches!(peer_public_key(&[vec![0x30; 5000].into()]), Err(PeerKeyError::Malformed)));
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let other = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&other).unwrap();
        assert!(matches!(peer_public_key(&[other.der().clone()]), Err(PeerKeyError::NotEd25519)));
    }
}
