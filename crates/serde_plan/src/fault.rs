//! What went wrong, and where in the value.

use std::borrow::Cow;
use std::fmt;

/// One step from a value to a part of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// A named field.
    Field(String),
    /// An element of a sequence or tuple.
    Index(usize),
    /// The value of a map's entry; holds the key as it is shown.
    Entry(String),
    /// The key of a map's entry, which cannot be shown: it is what is wrong.
    Key(usize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Entry(key) => write!(f, "[{key}]"),
            Step::Key(index) => write!(f, ".keys()[{index}]"),
        }
    }
}

/// Why a value could not be encoded or decoded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cause<E> {
    /// The value or the bytes are not what the plan says.
    Unfit(Cow<'static, str>),
    /// The source of the value, or its builder, has failed.
    Foreign(E),
}

impl<E> From<&'static str> for Cause<E> {
    fn from(text: &'static str) -> Cause<E> {
        Cause::Unfit(Cow::Borrowed(text))
    }
}

impl<E> From<String> for Cause<E> {
    fn from(text: String) -> Cause<E> {
        Cause::Unfit(Cow::Owned(text))
    }
}

/// A cause and its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault<E> {
    /// From the innermost part outwards: the order in which the calls return.
    steps: Vec<Step>,
    /// What went wrong there.
    pub cause: Cause<E>,
}

impl<E> Fault<E> {
    /// The same one step further out.
    #[must_use]
    pub fn under(mut self: Box<Self>, step: Step) -> Box<Self> {
        self.steps.push(step);
        self
    }

    /// Where it happened, behind the name of the whole value: `Request.items[3].size`.
    ///
    /// The middle of a very long path is left out, so that the depth of a value does not show in the length of
    /// an error.
    pub fn path(&self, root: &str) -> String {
        const ENDS: usize = 16;
        let mut path = root.to_owned();
        let steps = self.steps.len();
        for (number, step) in self.steps.iter().rev().enumerate() {
            if steps <= 2 * ENDS || number < ENDS || number >= steps - ENDS {
                path.push_str(&step.to_string());
            } else if number == ENDS {
                path.push_str(" ... ");
            }
        }
        path
    }
}

impl<E> From<Cause<E>> for Box<Fault<E>> {
    #[cold]
    fn from(cause: Cause<E>) -> Box<Fault<E>> {
        Box::new(Fault {
            steps: Vec::new(),
            cause,
        })
    }
}

impl<E> From<&'static str> for Box<Fault<E>> {
    #[cold]
    fn from(text: &'static str) -> Box<Fault<E>> {
        Cause::from(text).into()
    }
}

impl<E> From<String> for Box<Fault<E>> {
    #[cold]
    fn from(text: String) -> Box<Fault<E>> {
        Cause::from(text).into()
    }
}

/// Boxed, so that the good case stays small.
pub type Outcome<T, E> = Result<T, Box<Fault<E>>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_from_the_outside_in() {
        let fault: Box<Fault<()>> = Box::from("300 does not fit u8");
        let fault = fault
            .under(Step::Field("size".into()))
            .under(Step::Index(3))
            .under(Step::Entry("'a'".into()))
            .under(Step::Field("items".into()));
        assert_eq!(fault.path("Request"), "Request.items['a'][3].size");
        let fault: Box<Fault<()>> = Box::from("no str".to_owned());
        assert_eq!(fault.under(Step::Key(2)).path("dict"), "dict.keys()[2]");
    }

    #[test]
    fn the_middle_of_a_long_path_is_left_out() {
        let mut fault: Box<Fault<()>> = Box::from("deep");
        for index in 0..1000 {
            fault = fault.under(Step::Index(index));
        }
        let path = fault.path("list");
        assert!(
            path.starts_with("list[999][998]") && path.ends_with("[1][0]"),
            "{path}"
        );
        assert_eq!(path.matches('[').count(), 32);
    }
}
