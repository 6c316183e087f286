//! The same handlers as `balances.lua` and `transfers.lua`, in Rust.

use std::borrow::Cow;

use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Numeric};

forebay::entity! {
    /// What an account has of a token.
    pub struct Account in "account" {
        balance: Numeric,
    }
}

forebay::entity! {
    /// A transfer, by block and place within it.
    pub struct TransferRow in "transfer" {
        from_account: String,
        to_account: String,
        value: Numeric,
    }
}

/// A transfer as it comes; serde takes these fields and passes the others by.
#[derive(serde::Deserialize)]
pub struct Transfer<'e> {
    #[serde(borrow)]
    from: Cow<'e, str>,
    #[serde(borrow)]
    to: Cow<'e, str>,
    value: Numeric,
    block: i64,
    log_index: i64,
}

/// Keeps the balance of each account and, if asked for, every transfer.
pub struct Erc20 {
    pub keeps_transfers: bool,
}

impl Handler for Erc20 {
    type Event<'e> = Transfer<'e>;

    fn entities(&self) -> Vec<EntityTable> {
        let mut tables = vec![Account::table()];
        if self.keeps_transfers {
            tables.push(TransferRow::table());
        }
        tables
    }

    fn on_event(&self, transfer: Transfer<'_>, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let Transfer { from, to, value, block, log_index } = transfer;
        let had = ctx.get::<Account>(&from)?.map_or(Numeric::ZERO, |account| account.balance);
        ctx.set(&from, Account { balance: had - value.clone() })?;
        let had = ctx.get::<Account>(&to)?.map_or(Numeric::ZERO, |account| account.balance);
        ctx.set(&to, Account { balance: had + value.clone() })?;
        if self.keeps_transfers {
            let row = TransferRow { from_account: from.into_owned(), to_account: to.into_owned(), value };
            ctx.set(&format!("{block}-{log_index}"), row)?;
        }
        Ok(())
    }

    fn has_snapshots(&self) -> bool {
        true
    }

    fn on_snapshot(&self, ctx: &mut Context<'_>) -> Result<Option<serde_json::Value>, HandlerError> {
        Ok(Some(serde_json::json!({ "accounts": ctx.count::<Account>()? })))
    }
}
