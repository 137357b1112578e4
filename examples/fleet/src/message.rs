//! What one process tells the others of an outcome.

use std::any::Any;
use std::fmt::Display;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared_calls::Panicked;
use thiserror::Error;

/// Another process ran the function, and there is no value. Its error is shared as text: the error
/// itself is a value of that process, with a backtrace, a file handle or whatever else.
///
/// A [`RedisTier`](crate::tier::RedisTier) wants `E: From<Elsewhere>`; `anyhow::Error` has that,
/// and in an enum of one's own it is a variant with thiserror's `#[from]`.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum Elsewhere {
    #[error("{0} (in another process)")]
    Failed(String),
    /// To callers this is a [`CallError::Panicked`](shared_calls::CallError::Panicked), as in one
    /// process.
    #[error("panicked: {0}")]
    Panicked(String),
    /// The value was not understood, or could not be sent. Processes of different versions that
    /// disagree about `V` want different prefixes.
    #[error("the outcome that another process published cannot be read: {0}")]
    Unreadable(String),
}

/// The outcome of a function as it is sent: JSON of a `Result<V, Elsewhere>`.
pub fn encode<V: Serialize, E: Display>(
    outcome: Result<&Result<V, E>, &(dyn Any + Send)>,
) -> String {
    let result = match outcome {
        Ok(Ok(value)) => Ok(value),
        // With the whole chain, if the error is one that shows it when asked like this.
        Ok(Err(error)) => Err(Elsewhere::Failed(format!("{error:#}"))),
        Err(panic) => {
            let panicked = Panicked::of(panic);
            let text = panicked.message().unwrap_or("no message");
            Err(Elsewhere::Panicked(format!("{text} (in another process)")))
        }
    };
    serde_json::to_string(&result).unwrap_or_else(|error| {
        let unreadable: Result<(), _> = Err(Elsewhere::Unreadable(error.to_string()));
        serde_json::to_string(&unreadable).expect("text is always valid JSON")
    })
}

pub fn decode<V: DeserializeOwned>(json: &[u8]) -> Result<V, Elsewhere> {
    let result: serde_json::Result<Result<V, Elsewhere>> = serde_json::from_slice(json);
    result.unwrap_or_else(|error| Err(Elsewhere::Unreadable(error.to_string())))
}
