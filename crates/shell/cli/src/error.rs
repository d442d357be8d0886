//! The one error that people see: what failed, where, why, and what to do.

use std::fmt;
use std::ops::{Deref, DerefMut};

use api::ClientError;
use api::shapes::ErrorBody;

/// The process's exit code, a promise to scripts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exit {
    /// An error without a code of its own.
    #[default]
    Error,
    /// The command line is wrong; nothing was tried.
    Usage,
    /// It was accepted, and did not come about in time.
    NotConverged,
    /// It was accepted, and no node has room or fits.
    CannotBePlaced,
    /// It was taken back by itself.
    RolledBack,
    /// A job ran and failed for good, or was not done in its time.
    JobFailed,
    /// The desired state changed since the plan; nothing was done.
    Changed,
    /// No peer answered; nothing was done.
    NoPeer,
    /// The node of this folder was removed from its cluster; nothing of it runs.
    Removed,
    /// Ended by ^C; what was accepted goes on.
    Interrupted,
    /// A code that is passed on: of the program that `exec` ran, or of a refusal to run it.
    Passed(u8),
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Error => 1,
            Self::Usage => 2,
            Self::NotConverged => 3,
            Self::CannotBePlaced => 4,
            Self::RolledBack => 5,
            Self::Changed => 6,
            Self::NoPeer => 7,
            Self::Removed => 8,
            Self::JobFailed => 9,
            // As shells have it: 128 and the number of SIGINT.
            Self::Interrupted => 130,
            Self::Passed(code) => code,
        }
    }
}

/// One reason, and the lines of a file that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// A sentence.
    pub text: String,
    /// Lines to show below it, to people only.
    pub snippet: Option<String>,
}

impl Why {
    /// A reason without a snippet.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), snippet: None }
    }
}

/// Why a command failed: [`Details`], held apart so that results stay small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError(Box<Details>);

/// All that is said of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// What failed, in a sentence.
    pub what: String,
    /// A word for programs.
    pub word: String,
    /// Where, in a file or on a node.
    pub at: Option<String>,
    /// Why, from outermost to innermost, or a line a node.
    pub why: Vec<Why>,
    /// What to do.
    pub hint: Option<String>,
    /// The process's exit code.
    pub exit: Exit,
    /// Nothing is to be said: the reader of our output has gone, or the program has spoken already.
    pub silent: bool,
}

impl Deref for CliError {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl DerefMut for CliError {
    fn deref_mut(&mut self) -> &mut Details {
        &mut self.0
    }
}

impl CliError {
    /// An error with a word for programs and a sentence for people.
    pub fn new(word: &str, what: impl Into<String>) -> Self {
        Self(Box::new(Details {
            what: what.into(),
            word: word.to_owned(),
            at: None,
            why: Vec::new(),
            hint: None,
            exit: Exit::Error,
            silent: false,
        }))
    }

    /// A wrong command line.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new("usage", what).exit(Exit::Usage)
    }

    /// An end without words.
    pub fn quiet(exit: Exit) -> Self {
        let mut error = Self::new("quiet", "").exit(exit);
        error.silent = true;
        error
    }

    /// An error with its chain of causes.
    pub fn from_error(word: &str, error: &dyn std::error::Error) -> Self {
        Self::new(word, error.to_string()).causes(error)
    }

    /// With a place.
    #[must_use]
    pub fn at(mut self, at: impl Into<String>) -> Self {
        self.at = Some(at.into());
        self
    }

    /// With a reason.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why.push(Why::text(why));
        self
    }

    /// With the causes below `error`.
    #[must_use]
    pub fn causes(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = error.source();
        while let Some(cause) = next {
            self.why.push(Why::text(cause.to_string()));
            next = cause.source();
        }
        self
    }

    /// With advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With an exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// As programs see it.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: self.what.clone(),
            code: self.word.clone(),
            at: self.at.clone(),
            why: self.why.iter().map(|why| why.text.clone()).collect(),
            hint: self.hint.clone(),
        }
    }
}

impl fmt::Display for CliError {
    /// As people see it, without colours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if let Some(at) = &self.at {
            // A reason that begins with the place has said it.
            if !self.why.iter().any(|why| why.text.starts_with(at.as_str())) {
                write!(f, "\n  at {at}")?;
            }
        }
        for why in &self.why {
            for (n, line) in why.text.lines().enumerate() {
                write!(f, "\n  {}{line}", if n == 0 { "" } else { "  " })?;
            }
            for line in why.snippet.iter().flat_map(|snippet| snippet.lines()) {
                write!(f, "\n    {line}")?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CliError {}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Unreachable { source, .. } => {
                let hint = match source.kind() {
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                        "start it with `skerry peer`, or name another peer with --peer unix:PATH or --peer HOST:PORT"
                    }
                    std::io::ErrorKind::PermissionDenied => {
                        "run it as the user that the peer runs as, or reach the peer by --peer HOST:PORT with your key"
                    }
                    _ => "any other peer of the cluster will do: --peer HOST:PORT",
                };
                Self::from_error("no-peer", &error).hint(hint).exit(Exit::NoPeer)
            }
            ClientError::Refused { body, .. } => {
                let exit = match body.code.as_str() {
                    "no-room" | "cannot-be-placed" => Exit::CannotBePlaced,
                    "changed" => Exit::Changed,
                    "exec-125" => Exit::Passed(125),
                    "exec-126" => Exit::Passed(126),
                    "exec-127" => Exit::Passed(127),
                    _ => Exit::Error,
                };
                let mut error = Self::new(&body.code, body.error.clone()).exit(exit);
                error.at.clone_from(&body.at);
                error.why = body.why.iter().map(Why::text).collect();
                error.hint.clone_from(&body.hint);
                error
            }
            ClientError::Broken { .. } | ClientError::TimedOut { .. } | ClientError::Shape { .. } => {
                Self::from_error("peer", &error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_why_and_what_to_do() {
        let error = CliError::new("no-room", "deployment web cannot be placed")
            .at("edge-1")
            .because("edge-2: memory: 300Mi free, 512Mi asked")
            .hint("lower resources.memory");
        assert_eq!(
            error.to_string(),
            "error: deployment web cannot be placed\n  at edge-1\n  edge-2: memory: 300Mi free, 512Mi asked\nhint: lower resources.memory"
        );
        let body = serde_json::to_value(error.body()).unwrap();
        assert_eq!(body["code"], "no-room");
        assert_eq!(body["why"][0], "edge-2: memory: 300Mi free, 512Mi asked");
    }

    #[test]
    fn a_peer_that_is_not_there_has_its_own_exit_code_and_a_hint() {
        let error: CliError = ClientError::Unreachable {
            peer: "unix:/x/api.sock".into(),
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        }
        .into();
        assert_eq!(error.exit.code(), 7);
        assert!(error.to_string().starts_with("error: no peer answers at unix:/x/api.sock\n"), "{error}");
        assert!(error.hint.as_deref().unwrap().contains("skerry peer"));
    }
}
