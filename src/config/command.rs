//! The keys of a program in `[source]`.

use std::time::Duration;

use super::ConfigError;
use super::reading::Section;
use crate::source::{CommandPlan, Late};

/// Keys that only a program has.
const OF_COMMANDS: [&str; 2] = ["start", "restart"];

/// The program whose output is to be read, if there is one. `other` is where events come from beside it.
pub(super) fn read_command(
    section: &mut Section<'_, '_>,
    other: Option<&str>,
    late: Late,
) -> Result<Option<CommandPlan>, ConfigError> {
    let Some(at) = section.optional("command") else {
        for key in OF_COMMANDS {
            if let Some(value) = section.optional(key) {
                let message = format!("{key} belongs to a program: expected command = [\"PROGRAM\", …] too");
                return Err(value.key_error(message));
            }
        }
        return Ok(None);
    };
    if let Some(other) = other {
        return Err(at.key_error(format!("command: there is {other} too; expected one of them")));
    }
    if late == Late::Replay {
        return Err(at.key_error("command: late = \"replay\" is for files; expected \"error\" or \"skip\""));
    }
    let plan = CommandPlan::new(at.texts()?).map_err(|error| at.error(error))?;
    let start = section.optional("start").map_or_else(|| Ok(String::new()), |value| value.text())?;
    let restart: Option<Duration> = section.optional("restart").map(|value| value.duration()).transpose()?;
    Ok(Some(CommandPlan { start, restart: restart.unwrap_or(CommandPlan::RESTART), ..plan }))
}
