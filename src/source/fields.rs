//! Which fields of an event say where it belongs.

use crate::model::setting::SettingError;

/// The fields of an event that say where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fields {
    /// The block: an integer of 64 bits.
    pub block: String,
    /// The region: a text, or an integer that stands for its digits.
    pub region: String,
    /// The place within the block, if the source has one.
    pub seq: Option<String>,
    /// The hash of the block, if forks are to be followed: a text, or null where it is not known.
    pub hash: Option<String>,
    /// The hash of the block before: a text, or null where it is not known.
    pub parent: Option<String>,
    /// The position of the source after the event, if it is to be stored with the checkpoint: a text, an integer that stands
    /// for its digits, or null where it is not known.
    pub position: Option<String>,
}

impl Fields {
    /// The field of the block.
    ///
    /// # Errors
    /// The name is empty.
    pub fn with_block(self, field: impl Into<String>) -> Result<Self, SettingError> {
        Ok(Self { block: SettingError::unless_empty("block", field)?, ..self })
    }

    /// Without a field of the block: the source itself says which it is.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only streams do"))]
    pub(crate) fn without_block(self) -> Self {
        Self { block: String::new(), ..self }
    }

    /// The field of the region.
    ///
    /// # Errors
    /// The name is empty.
    pub fn with_region(self, field: impl Into<String>) -> Result<Self, SettingError> {
        Ok(Self { region: SettingError::unless_empty("region", field)?, ..self })
    }

    /// The field of the place within the block.
    ///
    /// # Errors
    /// The name is empty.
    pub fn with_seq(self, field: impl Into<String>) -> Result<Self, SettingError> {
        Ok(Self { seq: Some(SettingError::unless_empty("seq", field)?), ..self })
    }

    /// The field of the block's hash, so that forks are followed.
    ///
    /// # Errors
    /// The name is empty.
    pub fn with_hash(self, field: impl Into<String>) -> Result<Self, SettingError> {
        Ok(Self { hash: Some(SettingError::unless_empty("hash", field)?), ..self })
    }

    /// The field of the hash of the block before; it needs [`Fields::with_hash`] first.
    ///
    /// # Errors
    /// The name is empty, or there is no field of the block's own hash.
    pub fn with_parent(self, field: impl Into<String>) -> Result<Self, SettingError> {
        if self.hash.is_none() {
            return Err(SettingError::new("parent: it needs hash, the field of the block's own hash"));
        }
        Ok(Self { parent: Some(SettingError::unless_empty("parent", field)?), ..self })
    }

    /// The field of the position of the source after the event.
    ///
    /// # Errors
    /// The name is empty.
    pub fn with_position(self, field: impl Into<String>) -> Result<Self, SettingError> {
        Ok(Self { position: Some(SettingError::unless_empty("position", field)?), ..self })
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self { block: "block".into(), region: "region".into(), seq: None, hash: None, parent: None, position: None }
    }
}
