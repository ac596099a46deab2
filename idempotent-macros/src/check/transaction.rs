//! The option `transaction` and the argument that belongs to it, as far as the tokens of the argument's type tell.

use syn::{Error, Path, PathArguments, Type};

use crate::{
    errors::Errors,
    handler::{Handler, is_conditional},
    options::Options,
    types::{plain, type_arguments, written},
};

/// The databases of a transaction. A type of the user's own of this form can be written with another path, as in
/// `self::Transaction<Postgres>`.
const DATABASES: [&str; 3] = ["Postgres", "MySql", "Sqlite"];

/// Neither goes without the other.
pub(super) fn transaction(handler: &Handler, options: &Options, errors: &mut Errors) {
    let given = options.transaction.as_ref().filter(|given| given.value);
    let Some(given) = given else {
        for ty in handler.arguments().filter(|ty| is_transaction(ty)) {
            let message = format!(
                "`{}` is committed together with the record only with the option `transaction`: write `#[idempotent(transaction)]`",
                written(ty)
            );
            errors.push(Error::new_spanned(ty, message));
        }
        return;
    };
    if let Some(on_crash) = &options.on_crash {
        let message = "`on_crash` has no effect with `transaction`: what crashed was not committed, so the next retry executes; drop it";
        errors.push(Error::new(on_crash.name, message));
    }
    if handler.sig.asyncness.is_none() && handler.output().is_some() {
        let message = "`transaction` needs an `async fn`: the transaction begins before the handler's own code runs";
        errors.push(Error::new_spanned(handler.sig.fn_token, message));
    }
    // Which arguments with `#[cfg]` there are is not known here.
    if handler.sig.inputs.iter().any(is_conditional) {
        return;
    }
    let mut transactions = handler.arguments().filter(|ty| is(ty, &of_some_database));
    if transactions.next().is_none() {
        let message = "`transaction` needs the argument that commits with the record: add `mut tx: Transaction<Postgres>` (or `<MySql>`, `<Sqlite>`)";
        errors.push(Error::new(given.name, message));
    }
    for ty in transactions {
        let message = "a handler has one transaction: drop this argument";
        errors.push(Error::new_spanned(ty, message));
    }
}

/// `Transaction<Postgres>`, in an `Option` too, or in a tuple.
fn is_transaction(ty: &Type) -> bool {
    is(ty, &|path| {
        of_some_database(path)
            && path.segments.last().is_some_and(|last| {
                type_arguments(&last.arguments).any(|ty| match plain(ty) {
                    Type::Path(database) => {
                        let name = database.path.segments.last();
                        name.is_some_and(|name| DATABASES.iter().any(|known| name.ident == known))
                    }
                    _ => false,
                })
            })
    })
}

/// `Transaction<Db>`
fn of_some_database(path: &Path) -> bool {
    let last = path.segments.last();
    last.is_some_and(|last| last.ident == "Transaction" && !last.arguments.is_none())
}

/// Whether a type is a path of ours for which this holds, or contains one.
fn is(ty: &Type, found: &dyn Fn(&Path) -> bool) -> bool {
    match plain(ty) {
        Type::Tuple(tuple) => tuple.elems.iter().any(|ty| is(ty, found)),
        Type::Path(path) => {
            let path = &path.path;
            let ours = path.segments.len() == 1
                || path
                    .segments
                    .iter()
                    .any(|part| part.ident == "idempotent_runtime");
            let optional = path.segments.last().filter(|last| last.ident == "Option");
            let inside = optional.map_or(&PathArguments::None, |last| &last.arguments);
            (ours && found(path)) || type_arguments(inside).any(|ty| is(ty, found))
        }
        _ => false,
    }
}
