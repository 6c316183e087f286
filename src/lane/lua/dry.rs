//! The bounds of dry runs: a call that sees rows as they were may go on for ever, or fill the memory, where the same
//! call in its order does neither.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use mlua::debug::Debug;
use mlua::prelude::*;
use mlua::{HookTriggers, VmState};

use crate::lane::watch::Watch;
use crate::model::limits::DRY_TIME_MAX;

/// Instructions of the VM from one look at the clock to the next. Not a round number: few loops are as long.
const INSTRUCTIONS: u32 = 251;

/// The files of the inner side that are a script's library: a loop there may be as long as the script says, and leaves
/// nothing half done.
const LIBRARY: [&str; 3] = ["=inner:library", "=inner:sandbox", "=inner:texts"];

/// What the dry runs behind one call may take.
#[derive(Clone)]
struct Bounds {
    watch: Arc<Watch>,
    end: Instant,
    is_over: Arc<AtomicBool>,
}

impl Bounds {
    /// Has itself asked every so many instructions.
    fn hook(self, lua: &Lua, instructions: u32) -> LuaResult<()> {
        let triggers = HookTriggers::new().every_nth_instruction(instructions);
        lua.set_hook(triggers, move |lua, debug| self.look(lua, debug))
    }

    /// Ends the dry run if its time is over: not amid the inner side, but where the script might have raised an error too,
    /// or in a function of its library.
    fn look(&self, lua: &Lua, debug: &Debug) -> LuaResult<VmState> {
        // It does not hang: only what no hook sees, a function of the library, may still take too long.
        self.watch.tick(self.watch.event() as u64);
        if Instant::now() < self.end {
            return Ok(VmState::Continue);
        }
        if !self.is_over.swap(true, Ordering::Relaxed) {
            // The next instruction of the script is the last, wherever the steps would have led.
            self.clone().hook(lua, 1)?;
        }
        let may_end = |name: &str| name.starts_with('@') || LIBRARY.contains(&name);
        match debug.source().source.is_some_and(|name| may_end(&name)) {
            true => Err(LuaError::runtime("the time for dry runs is over")),
            false => Ok(VmState::Continue),
        }
    }
}

/// What begins and ends the bounds.
pub(super) fn dry_functions(lua: &Lua, table: &LuaTable, watch: &Arc<Watch>) -> LuaResult<()> {
    let memory_limit = Arc::new(Mutex::new(None));
    let (watch, limit) = (Arc::clone(watch), Arc::clone(&memory_limit));
    let begin = move |lua: &Lua, ()| {
        let end = Instant::now() + DRY_TIME_MAX;
        let bounds = Bounds { watch: Arc::clone(&watch), end, is_over: Arc::default() };
        bounds.hook(lua, INSTRUCTIONS)?;
        let used = lua.used_memory();
        let whole = lua.set_memory_limit(usize::MAX)?;
        *limit.lock().unwrap_or_else(PoisonError::into_inner) = Some(whole);
        // Half of what is left: the calls that count go on in the other half.
        lua.set_memory_limit(used + whole.saturating_sub(used) / 2)?;
        Ok(())
    };
    table.raw_set("begin_dry", lua.create_function(begin)?)?;
    let end = move |lua: &Lua, ()| {
        if let Some(whole) = memory_limit.lock().unwrap_or_else(PoisonError::into_inner).take() {
            lua.set_memory_limit(whole)?;
        }
        lua.remove_hook();
        Ok(())
    };
    table.raw_set("end_dry", lua.create_function(end)?)
}
