//! What the errors of TLS mean.

use std::error::Error;

/// What to do about an error, if it is one of TLS; its causes are looked at too.
pub fn hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if text.contains("CaUsedAsEndEntity") {
            return Some(
                "its certificate is an authority's own, as `openssl req -x509` makes it: give the server one that the \
                 authority has issued, with basicConstraints CA:FALSE",
            );
        }
        if text.contains("invalid peer certificate") {
            return Some("name the file of the authority that vouches for its certificate as `ca`");
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_found_among_the_causes() {
        let inner = std::io::Error::other("invalid peer certificate: UnknownIssuer");
        let outer = std::io::Error::other(inner);
        assert!(hint(&outer).is_some_and(|hint| hint.contains("`ca`")));
        assert_eq!(hint(&std::io::Error::other("refused")), None);
    }
}
