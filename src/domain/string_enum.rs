//! Enumerations with a text form.

/// Declares an enumeration whose values have a text form, in which they are stored and sent.
macro_rules! string_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $meaning:literal])+ $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[doc = $meaning])+ $variant),+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the text form.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Returns the description of this value, which is its documentation comment.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning),+).trim_ascii()),+ }
            }

            /// Parses the text form.
            ///
            /// # Errors
            /// If the text is not one of the values. The message lists them.
            pub fn parse(text: &str) -> Result<Self, $crate::domain::invalid::Invalid> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err($crate::domain::invalid::Invalid::NotOneOf(&[$($text),+])),
                }
            }
        }
    };
}
pub(crate) use string_enum;
