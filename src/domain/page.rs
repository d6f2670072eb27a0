//! Keyset pagination: each page returns the cursor of the next, so page 10,000 costs the same as page 1.

use super::invalid::Invalid;

/// The maximum number of items on a page, 1 to 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u16);

impl Limit {
    /// The largest limit.
    pub const MAX: u16 = 500;

    /// Creates a limit, clamping `count` to 1 to 500.
    #[must_use]
    pub const fn of(count: u16) -> Self {
        Self(if count == 0 {
            1
        } else if count > Self::MAX {
            Self::MAX
        } else {
            count
        })
    }

    /// Parses a limit of 1 to 500.
    ///
    /// # Errors
    /// If the text is not an integer or is out of range.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let count: i64 = text.parse().map_err(|_| {
            Invalid::new("int_parsing", "Input should be a valid integer, unable to parse string as an integer")
        })?;
        match u16::try_from(count) {
            Ok(count @ 1..=Self::MAX) => Ok(Self(count)),
            _ if count < 1 => Err(Invalid::new("greater_than_equal", "Input should be greater than or equal to 1")),
            _ => Err(Invalid::new("less_than_equal", "Input should be less than or equal to 500")),
        }
    }

    /// Returns the number of items.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A page of items and the cursor of the next page.
#[derive(Clone, Debug)]
pub struct Page<T, C> {
    /// The items, in the order of the listing.
    pub items: Vec<T>,
    /// Cursor of the next page, if there may be more items: the key of the last item, or of the last row examined.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// Creates a page from up to `limit + 1` items. An extra item means that another page follows; it is dropped.
    #[must_use]
    pub fn cut(mut items: Vec<T>, limit: Limit, cursor: impl Fn(&T) -> C) -> Self {
        let size = usize::from(limit.get());
        let more = items.len() > size;
        items.truncate(size);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }
}
