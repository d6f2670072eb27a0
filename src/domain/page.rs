//! Keyset paging: a page names where the next one starts, so page 10,000 costs what page 1 costs.

use super::error::Invalid;

/// How many items a page may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u16);

impl Limit {
    /// Most items on a page.
    pub const MAX: u16 = 500;

    /// A limit fixed in code, brought into 1 to 500.
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

    /// Reads a limit of 1 to 500.
    ///
    /// # Errors
    /// When it is no whole number or out of range.
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

    /// The number of items.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Some items, and where the next page starts if there is one.
#[derive(Clone, Debug)]
pub struct Page<T, C> {
    /// The items, in the order of the listing.
    pub items: Vec<T>,
    /// Where the next page starts, when more may follow: the key of the last item, or of the last place looked at.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// Makes a page from `limit + 1` fetched items: the surplus one only tells that more follow.
    #[must_use]
    pub fn cut(mut items: Vec<T>, limit: Limit, cursor: impl Fn(&T) -> C) -> Self {
        let size = usize::from(limit.get());
        let more = items.len() > size;
        items.truncate(size);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }
}
