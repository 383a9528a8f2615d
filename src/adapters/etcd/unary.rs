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
