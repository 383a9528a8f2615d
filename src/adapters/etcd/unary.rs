//! The calls of every scrape, whose requests are empty.
//!
//! In place of etcd-client's own: it would make eight clients for each call, and tonic would take 8 KiB for the request
//! and as much for the answer. For a whole fleet that is more processor time than sending and reading.

use std::marker::PhantomData;

use etcd_client::{
    Error, MemberListResponse, StatusResponse,
    proto::{PbMemberListResponse, PbStatusResponse},
};
use hyper::http::uri::PathAndQuery;
use prost::Message;
use tonic::{
    Request,
    client::Grpc,
    codec::{BufferSettings, Codec},
};
use tonic_prost::{ProstDecoder, ProstEncoder};

use super::channel::OnPipe;

/// Longer answers make the buffer grow.
const USUAL_ANSWER_BYTES: usize = 512;
/// The length of a message, which is all of an empty one.
const EMPTY_REQUEST_BYTES: usize = 5;

struct EmptyRequest<T>(PhantomData<T>);

impl<T: Message + Default + 'static> Codec for EmptyRequest<T> {
    type Encode = ();
    type Decode = T;
    type Encoder = ProstEncoder<()>;
    type Decoder = ProstDecoder<T>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(EMPTY_REQUEST_BYTES, EMPTY_REQUEST_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(USUAL_ANSWER_BYTES, USUAL_ANSWER_BYTES))
    }
}

async fn call<T: Message + Default + 'static>(calls: OnPipe, path: &'static str) -> Result<T, Error> {
    let path = PathAndQuery::from_static(path);
    let answer = Grpc::new(calls).unary(Request::new(()), path, EmptyRequest(PhantomData)).await?;
    Ok(answer.into_inner())
}

/// The sizes of the member that answers.
pub(super) async fn status(calls: OnPipe) -> Result<StatusResponse, Error> {
    call::<PbStatusResponse>(calls, "/etcdserverpb.Maintenance/Status").await.map(StatusResponse)
}

/// The members as the one that answers knows them; no quorum is needed.
pub(super) async fn member_list(calls: OnPipe) -> Result<MemberListResponse, Error> {
    call::<PbMemberListResponse>(calls, "/etcdserverpb.Cluster/MemberList").await.map(MemberListResponse)
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::PbMember;
    use h2::server;
    use hyper::{HeaderMap, Response, body::Bytes, header::HeaderValue};
    use tokio::net::TcpListener;

    use super::{
        super::{channel::Link, dial::Dial, names::Names},
        *,
    };

    /// Answers one call with these pieces of data and this gRPC status.
    async fn answering(pieces: Vec<Bytes>, status: &'static str) -> OnPipe {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.expect("a connection");
            let mut connection = server::handshake(socket).await.expect("a handshake");
            let (request, mut respond) = connection.accept().await.expect("a call").expect("whole");
            assert_eq!(request.uri().path(), "/etcdserverpb.Cluster/MemberList");
            let mut stream = respond.send_response(Response::new(()), false).expect("sent");
            for piece in pieces {
                stream.send_data(piece, false).expect("sent");
            }
            let trailers = [("grpc-status", status), ("grpc-message", "why")];
            let trailers =
                trailers.map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)));
            stream.send_trailers(HeaderMap::from_iter(trailers)).expect("sent");
            while connection.accept().await.is_some() {}
        });
        let dial = Dial::plain(url.parse().expect("an address"), Names::default()).expect("it has a host");
        Link::new(dial).pipe().await.expect("connected").calls(None)
    }

    #[tokio::test]
    async fn an_answer_longer_than_usual_that_comes_in_pieces_is_read_whole() {
        let member = |id| PbMember { id, name: format!("etcd-{id}").repeat(20), ..PbMember::default() };
        let list = PbMemberListResponse { members: (1..=20).map(member).collect(), ..PbMemberListResponse::default() };
        let message = list.encode_to_vec();
        assert!(message.len() > 2 * USUAL_ANSWER_BYTES);
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
        framed.extend(message);
        let pieces = framed.chunks(700).map(Bytes::copy_from_slice).collect();
        let answered = member_list(answering(pieces, "0").await).await.expect("answered");
        assert_eq!(answered.0, list);
    }

    #[tokio::test]
    async fn the_status_of_a_refused_call_is_its_error() {
        let refused = member_list(answering(Vec::new(), "16").await).await.expect_err("refused");
        assert!(
            matches!(&refused, Error::GRpcStatus(status)
            if status.code() == tonic::Code::Unauthenticated && status.message() == "why"),
            "{refused}"
        );
    }
}
