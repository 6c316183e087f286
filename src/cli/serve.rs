//! `--listen` of `forebay run` and `forebay seed`: where it listens, and saying so.

use std::io::Write;

use forebay::Pipeline;
use forebay::serve::{Access, Listen, ListenError, Listening, Serving, WatchedSeeder};

use super::args::{Global, LogFormat, Server};
use super::exit::{Code, Failure};
use super::log;

/// Takes the address, if there is one: before anything begins it is certain.
pub(super) fn listen(args: &Server) -> Result<Option<Listening>, Failure> {
    let Some(address) = &args.listen else { return Ok(None) };
    let access = match &args.listen_token_file {
        Some(file) => Access::token_of(file)?,
        None if args.listen_open => Access::Open,
        None => Access::Local,
    };
    Ok(Some(Listen::at(address).access(access).stall(args.stall).bind()?))
}

/// Serves a pipeline, and says where.
pub(super) fn serve(listening: Listening, pipeline: &Pipeline, global: &Global) -> Result<Serving, Failure> {
    Ok(told(listening.serve(pipeline.watched(), log::warnings().clone())?, global))
}

/// Serves a seeder, and says where.
pub(super) fn serve_seeder(listening: Listening, seeder: WatchedSeeder, global: &Global) -> Result<Serving, Failure> {
    Ok(told(listening.serve_seeder(seeder, log::warnings().clone())?, global))
}

/// Says where it listens, in one line that a script can take apart.
fn told(serving: Serving, global: &Global) -> Serving {
    let line = format!("listening on http://{}/", serving.address());
    // A port that the system has chosen is known from here only.
    let _ = match (global.quiet, global.log_format) {
        (false, _) => {
            tracing::info!("{line}");
            Ok(())
        }
        (true, LogFormat::Text) => writeln!(std::io::stderr().lock(), "{line}"),
        (true, LogFormat::Json) => {
            let line = serde_json::json!({ "level": "INFO", "message": line });
            writeln!(std::io::stderr().lock(), "{line}")
        }
    };
    serving
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        Self::new(if error.is_usage() { Code::Usage } else { Code::Failed }, error)
    }
}
