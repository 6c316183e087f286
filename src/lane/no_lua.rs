//! Stands for handlers in Lua in a build without the cargo feature `lua`: says so to whoever has a script.

use std::convert::Infallible;
use std::path::Path;

use super::{Engine, EngineContext, EngineFactory, LaneError};
use crate::model::built::NotBuilt;

/// Makes engines from a script. This build has no Lua, so there is no value of it.
pub(crate) struct ScriptFactory(Infallible);

impl ScriptFactory {
    pub(crate) fn read(_: &Path) -> Result<Self, LaneError> {
        Err(LaneError::Unusable(NotBuilt::new("Lua", "lua").to_string()))
    }
}

impl EngineFactory for ScriptFactory {
    fn build(&self, _: EngineContext) -> Result<Box<dyn Engine>, LaneError> {
        match self.0 {}
    }

    fn has_snapshots(&self) -> bool {
        match self.0 {}
    }

    fn name(&self) -> String {
        match self.0 {}
    }
}
