//! How QUIC is set up: the one place that knows quinn's settings.

use std::sync::Arc;

use identity::{Expect, KeyPair};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{Connection, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::CertificateDer;

use crate::limits::{
    CRYPTO_BUFFER_BYTES, DATAGRAM_QUEUE_BYTES_MAX, IDLE_MS_MAX, INCOMING_MAX, INITIAL_RTT_MS, KEEP_ALIVE_MS,
    MTU_BYTES_MAX, SEND_WINDOW_BYTES, STRANGER_WINDOW_BYTES, STREAM_WINDOW_BYTES, WINDOW_BYTES, ms,
};

/// The mesh: both ends are nodes.
pub const ALPN_MESH: &[u8] = b"skerry-mesh/1";

/// Requests: the client is a user.
pub const ALPN_API: &[u8] = b"skerry-api/1";

/// The join conversation: the client has any key.
pub const ALPN_JOIN: &[u8] = b"skerry-join/1";

/// A name for TLS, which wants one; it is not sent and nobody checks it.
pub(crate) const SERVER_NAME: &str = "skerry.internal";

/// What is the same for every connection. Nobody may open a bidirectional stream before admission.
fn common() -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_BYTES_MAX);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        // The stream that carries the greeting and then the frames.
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS_MAX))))
        .keep_alive_interval(Some(ms(KEEP_ALIVE_MS)))
        .initial_rtt(ms(INITIAL_RTT_MS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .crypto_buffer_size(CRYPTO_BUFFER_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_QUEUE_BYTES_MAX))
        .datagram_send_buffer_size(DATAGRAM_QUEUE_BYTES_MAX)
        .mtu_discovery_config(Some(mtu));
    config
}

/// For calls that come in: a stranger's window until it is admitted.
pub(crate) fn server(key: &KeyPair) -> quinn::ServerConfig {
    let tls = identity::server_config(key, &[ALPN_MESH, ALPN_API, ALPN_JOIN]);
    let crypto = QuicServerConfig::try_from(tls).expect("the provider has the suite of QUIC's first packets");
    let mut transport = common();
    transport.receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES));
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(16 << 10)
        .incoming_buffer_size_total(1 << 20);
    config
}

/// For calls that go out to a key that is known.
pub(crate) fn client(key: &KeyPair, alpn: &[u8], expect: Expect) -> quinn::ClientConfig {
    let tls = identity::client_config(key, alpn, expect);
    let crypto = QuicClientConfig::try_from(tls).expect("the provider has the suite of QUIC's first packets");
    let mut transport = common();
    transport.receive_window(VarInt::from_u32(WINDOW_BYTES));
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    config
}

/// The socket's own settings. The keys of stateless resets and of connection ids are derived from
/// the node's: a peer that was restarted then knows the ids of its former life as its own, and can
/// tell the others at once that it has forgotten their connections.
pub(crate) fn endpoint(key: &KeyPair) -> EndpointConfig {
    let secret = key.derive("quic stateless reset");
    let reset = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_slice());
    let secret = key.derive("quic connection ids");
    let ids = u64::from_be_bytes(*secret.first_chunk().expect("a secret has 32 bytes"));
    let mut config = EndpointConfig::new(Arc::new(reset));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

/// The key that the other end has proven to hold, after the handshake.
pub(crate) fn peer_key(connection: &Connection) -> Result<[u8; 32], identity::PeerKeyError> {
    let certificates = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .unwrap_or_default();
    identity::peer_public_key(&certificates)
}

/// The protocol that both ends agreed on, after the handshake.
pub(crate) fn alpn(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}
