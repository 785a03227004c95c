//! A trace of a packet in the gateway that runs, as the control socket has it: the request, and its answer.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::control::view::View;
use crate::trace::captured::{Asked, Captured, CapturedError};
use crate::trace::grammar::ParsePacketError;
use crate::trace::hex::{self, ParseHexError};
use crate::trace::{Ingress, Question, TraceError, trace_live};

/// One request: `{"trace":{"packet":"tcp 10.0.0.2:40000 > 10.254.80.22:80"},"in":"eth0","seed":3}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// The packet.
    pub trace: Wanted,
    /// The port that it comes in by.
    #[serde(rename = "in", default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The tunnel that it comes through: `1@192.168.0.22`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Decides all that is random.
    #[serde(default)]
    pub seed: u64,
    /// As text for people instead of JSON for programs.
    #[serde(default)]
    pub text: bool,
}

/// The packet of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// In the grammar of `pollgate trace`.
    Packet(String),
    /// An Ethernet frame in hexadecimal.
    Frame(String),
    /// An IP packet in hexadecimal.
    Ip(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LiveTraceError {
    /// What is asked is no question here.
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// The gateway has no answer.
    #[error("no trace can be made: {0}")]
    Gateway(TraceError),
    /// The answer cannot be written.
    #[error("the trace cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// What is wrong with a question.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// The packet's text.
    #[error(transparent)]
    Packet(#[from] ParsePacketError),
    /// Its bytes.
    #[error(transparent)]
    Bytes(#[from] CapturedError),
    /// No bytes.
    #[error(transparent)]
    Hex(#[from] ParseHexError),
    /// The tunnel.
    #[error("--via: {0}")]
    Via(String),
    /// Both a port and a tunnel.
    #[error("a packet comes in by a port or through a tunnel, not both")]
    Both,
    /// There is no such way in.
    #[error("{0}")]
    Ingress(String),
}

impl TraceRequest {
    /// The request for a question.
    pub fn new(question: &Question, text: bool) -> Self {
        let trace = match &question.packet {
            Asked::Said(spec) => Wanted::Packet(spec.to_string()),
            Asked::Captured(captured) => match captured.to_hex() {
                (bytes, true) => Wanted::Frame(bytes),
                (bytes, false) => Wanted::Ip(bytes),
            },
        };
        let (port, via) = match &question.ingress {
            Some(Ingress::Port(name)) => (Some(name.clone()), None),
            Some(tunnel) => (None, Some(tunnel.to_string())),
            None => (None, None),
        };
        Self { trace, port, via, seed: question.seed, text }
    }

    fn question(&self) -> Result<Question, QuestionError> {
        let packet = match &self.trace {
            Wanted::Packet(text) => Asked::Said(text.parse()?),
            Wanted::Frame(digits) => Captured::frame(&hex::parse(digits)?)?.into(),
            Wanted::Ip(digits) => Captured::ip(&hex::parse(digits)?)?.into(),
        };
        let ingress = match (&self.port, &self.via) {
            (Some(_), Some(_)) => return Err(QuestionError::Both),
            (Some(name), None) => Some(Ingress::Port(name.clone())),
            (None, Some(via)) => Some(via.parse().map_err(QuestionError::Via)?),
            (None, None) => None,
        };
        Ok(Question { packet, ingress, seed: self.seed })
    }
}

/// Answers a request; nothing of the gateway changes by it.
pub fn answer(view: &View, request: &TraceRequest) -> Result<Value, LiveTraceError> {
    let trace = trace_live(view, &request.question()?).map_err(|error| match error {
        TraceError::Ingress(reason) => LiveTraceError::Question(QuestionError::Ingress(reason)),
        error => LiveTraceError::Gateway(error),
    })?;
    if request.text {
        return Ok(json!({ "text": trace.to_string() }));
    }
    Ok(serde_json::to_value(trace)?)
}

#[cfg(test)]
mod tests;
