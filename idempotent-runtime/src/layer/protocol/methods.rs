//! The gRPC methods whose calls are protected.

use http::Request;

use super::Protocol;

/// None, unless the layer was told some.
#[derive(Clone, Debug, Default)]
pub(in crate::layer) struct Methods {
    #[cfg(feature = "grpc")]
    paths: std::sync::Arc<std::collections::HashSet<String>>,
}

#[cfg(not(feature = "grpc"))]
impl Methods {
    /// Without the feature no call is protected.
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(super) fn protect<B>(&self, _: &Request<B>) -> Option<Protocol> {
        None
    }
}

#[cfg(feature = "grpc")]
impl Methods {
    /// # Panics
    ///
    /// If one of them is no path of a method.
    pub(in crate::layer) fn new(paths: impl IntoIterator<Item = String>) -> Self {
        let paths = paths.into_iter().inspect(|path| {
            assert!(
                is_method(path),
                "{path:?} is no path of a gRPC method: it has to be /package.Service/Method"
            );
        });
        Self {
            paths: std::sync::Arc::new(paths.collect()),
        }
    }

    /// How the call of a method that is listed is protected. gRPC-Web has another form, and is not.
    pub(super) fn protect<B>(&self, request: &Request<B>) -> Option<Protocol> {
        let is_protected =
            super::grpc::is_native(request.headers()) && self.paths.contains(request.uri().path());
        is_protected.then_some(Protocol::Grpc)
    }
}

/// A service and a method, each not empty (gRPC over HTTP/2, "Requests").
#[cfg(feature = "grpc")]
fn is_method(path: &str) -> bool {
    let names = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    names.is_some_and(|(service, method)| {
        let is_name = |name: &str| {
            let mut bytes = name.bytes();
            !name.is_empty()
                && bytes.all(|byte| byte.is_ascii_graphic() && !b"/?#{}".contains(&byte))
        };
        is_name(service) && is_name(method)
    })
}

#[cfg(all(test, feature = "grpc"))]
mod tests {
    use super::*;

    fn call(path: &str, content_type: &str) -> Request<()> {
        let call = Request::post(path).header("content-type", content_type);
        call.body(()).unwrap()
    }

    #[test]
    fn a_method_is_listed_by_its_path() {
        let methods = Methods::new(["/pay.v1.Payments/Charge".into()]);
        let charge = "/pay.v1.Payments/Charge";
        for (path, content_type, expected) in [
            (charge, "application/grpc", true),
            (charge, "application/grpc+proto", true),
            (charge, "application/grpc-web+proto", false),
            (charge, "application/grpc-web-text", false),
            ("/pay.v1.Payments/Refund", "application/grpc", false),
            ("/pay.v1.Payments", "application/grpc", false),
        ] {
            let found = methods.protect(&call(path, content_type));
            assert_eq!(found.is_some(), expected, "{path} {content_type}");
        }
        let none = Methods::default();
        assert_eq!(none.protect(&call(charge, "application/grpc")), None);
    }

    #[test]
    fn what_is_no_method_is_refused() {
        for path in [
            "",
            "/",
            "pay.Payments/Charge",
            "/pay.Payments",
            "/pay.Payments/",
            "//Charge",
            "/pay.Payments/Charge/",
            "/pay.Payments/{method}",
            "/pay.Payments/Charge now",
        ] {
            assert!(!is_method(path), "{path}");
        }
        assert!(is_method("/pay.Payments/Charge"));
        assert!(is_method("/Payments/Charge"));
    }
}
