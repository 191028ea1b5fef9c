//! Slices of any element type as slices of the machine words that hold their codes: what kernels read and write.

use super::{Codec, Format};

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
    impl Sealed for i32 {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A machine word that holds codes of some formats.
pub trait Word: sealed::Sealed + bytemuck::Pod + Send + Sync + std::fmt::Debug {
    /// The slice, if it is of this type.
    fn of<'a>(words: Words<'a>) -> Option<&'a [Self]>;
    /// The slice, if it is of this type.
    fn of_mut<'a>(words: WordsMut<'a>) -> Option<&'a mut [Self]>;
}

macro_rules! words {
    ($($variant:ident $t:ty),*) => {
        /// Codes to read.
        #[derive(Clone, Copy, Debug)]
        pub enum Words<'a> {
            $(#[doc = concat!("In words of ", stringify!($t), ".")] $variant(&'a [$t]),)*
        }
        /// Codes to write.
        #[derive(Debug)]
        pub enum WordsMut<'a> {
            $(#[doc = concat!("In words of ", stringify!($t), ".")] $variant(&'a mut [$t]),)*
        }
        impl Words<'_> {
            /// Number of codes.
            pub fn len(&self) -> usize {
                match self { $(Words::$variant(words) => words.len(),)* }
            }
            /// Whether there are none.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }
        impl WordsMut<'_> {
            /// The codes, to read.
            pub fn as_words(&self) -> Words<'_> {
                match self { $(WordsMut::$variant(words) => Words::$variant(words),)* }
            }
        }
        $(impl Word for $t {
            fn of<'a>(words: Words<'a>) -> Option<&'a [Self]> {
                if let Words::$variant(words) = words { Some(words) } else { None }
            }
            fn of_mut<'a>(words: WordsMut<'a>) -> Option<&'a mut [Self]> {
                if let WordsMut::$variant(words) = words { Some(words) } else { None }
            }
        })*
    };
}
words!(U8 u8, U16 u16, I32 i32, F32 f32, F64 f64);

impl Words<'_> {
    /// The value of code `i` in f64, which holds every value of every format.
    pub fn value(&self, format: Format, i: usize) -> f64 {
        let narrow = |code: u32| match format {
            Format::I8 => f64::from(code as u8 as i8),
            Format::U8 => f64::from(code),
            _ => f64::from(Codec::of(format).expect("a narrow format in narrow words").widen(code)),
        };
        match self {
            Words::U8(words) => narrow(words[i].into()),
            Words::U16(words) => narrow(words[i].into()),
            Words::I32(words) => words[i].into(),
            Words::F32(words) => words[i].into(),
            Words::F64(words) => words[i],
        }
    }
}
