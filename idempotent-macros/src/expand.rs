//! From what was read to what is compiled: the only rooms with `quote!`, this one and those inside it.
//!
//! ```text
//! pub fn create_payment(_: Slot<State<App>>, call: FromRouter<(State<App>, Json<NewPayment>)>) -> HandlerFuture {
//!     async fn create_payment(State(app): State<App>, Json(p): Json<NewPayment>) -> Out { …untouched… }
//!     run_handler(call, &Policy::new().ttl(…), "module::create_payment", |a| respond(create_payment, a, answer))
//! }
//! ```
//!
//! 1. The handler stays a plain `fn` with its generics and its number of arguments, so that turbofish, routing
//!    and other attributes treat it as before. Each argument becomes a placeholder, the last one the whole
//!    request; the arguments are extracted when the engine says "execute". Without arguments there is one
//!    all the same, for the request.
//! 2. The user's function stands inside, whole and once. What it calls by its own name is itself.
//! 3. The policy is a constant expression, not an item: the user's body sees no name that it did not write.
//! 4. Generated tokens resolve at [`Span::mixed_site`]. Where a type error should point at the user's code they
//!    are *located* there, which keeps their resolution (a handler may come out of a `macro_rules!`).
//! 5. The `fn` token, the name and the braces are the user's, or rustc takes the function for generated code
//!    and drops its `dead_code` lint. No `allow` is put on it.
//! 6. Under `cfg(doc)` there is the signature as it was written, if the function is visible or documented.
//! 7. After a mistake there is still a function of that name which fits every route, and the body in its place:
//!    the mistake is reported alone, and an editor goes on helping inside.

mod attrs;
mod policy;
mod private;
mod spans;

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Attribute, GenericParam, Generics, Signature, Type, TypeParamBound, Visibility, WherePredicate,
    ext::IdentExt, parse_quote,
};

use crate::{
    broken, check,
    errors::Errors,
    handler::{Answer, Handler, mentions},
    options::{Given, Inner, Options},
};
use attrs::{beside_attrs, handler_attrs, is_outer, outer_attrs};
use policy::policy;
use private::Private;
use spans::{at, ends, located};

/// The attribute.
pub(crate) fn idempotent(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let options = Options::parse(arguments, &mut errors);
    check::options(&options, &mut errors);
    let mut tokens = match Handler::parse(item.clone()) {
        Err(error) => {
            if !broken::signature(item.clone()) {
                errors.push(error);
            }
            item
        }
        Ok(handler) => {
            let sound = check::handler(&handler, &options, &mut errors);
            let expand = if sound { annotated } else { refused };
            let place = Place::of(&handler, &options);
            let variants = handler.variants().into_iter();
            variants
                .map(|(cfgs, handler)| {
                    expand(&Expansion {
                        handler,
                        cfgs,
                        options: &options,
                        place: &place,
                    })
                })
                .collect()
        }
    };
    tokens.extend(errors.into_tokens());
    tokens
}

/// One handler to expand.
struct Expansion<'a> {
    handler: Handler,
    /// Attributes that choose between the variants of a handler with `#[cfg]` arguments.
    cfgs: Vec<Attribute>,
    options: &'a Options,
    place: &'a Place,
}

/// Where the user's function stands, and by which name.
enum Place {
    Inside,
    Beside(Ident),
    Associated(Ident),
}

impl Place {
    fn of(handler: &Handler, options: &Options) -> Self {
        match options.inner.as_ref().map(|inner| &inner.value) {
            Some(Inner::Associated(name)) => Self::Associated(name.clone()),
            // Already reported; inside the handler, `Self` would be reported again.
            _ if handler.names_self.is_some() => {
                Self::Associated(format_ident!("{}_inner", handler.sig.ident.unraw()))
            }
            Some(Inner::Beside(name)) if name.unraw() != handler.sig.ident.unraw() => {
                Self::Beside(name.clone())
            }
            Some(Inner::Beside(_)) | None => Self::Inside,
        }
    }

    /// The path by which the handler calls it.
    fn path(&self, handler: &Handler) -> TokenStream {
        let ident = &handler.sig.ident;
        match self {
            Self::Inside => quote!(#ident),
            Self::Beside(name) => {
                let mut name = name.clone();
                name.set_span(name.span().located_at(ident.span()));
                name.to_token_stream()
            }
            Self::Associated(name) => {
                let at = at(name.span());
                quote_spanned!(at=> Self::#name)
            }
        }
    }
}

/// The handler as axum sees it, and the user's function.
fn annotated(expansion: &Expansion<'_>) -> TokenStream {
    let Expansion {
        handler,
        cfgs,
        options,
        ..
    } = expansion;
    let private = Private::of(options);
    let outer_attrs = handler_attrs(expansion);
    let outer = outer(
        expansion,
        &private,
        &parameters(handler, options, &private),
        &private.within(|private| run(expansion, private)),
    );
    let beside = beside(expansion);
    let Handler { vis, sig, .. } = handler;
    // A second signature costs a tenth of what there is to check; a private function is in no documentation.
    let shown = !matches!(vis, Visibility::Inherited)
        || handler.attrs.iter().any(|attr| attr.path().is_ident("doc"));
    let attrs = quote!(#(#outer_attrs)* #(#cfgs)*);
    if !shown {
        return quote!(#attrs #outer #beside);
    }
    quote! {
        #attrs #[cfg(doc)]
        #vis #sig { ::core::unreachable!() }
        #attrs #[cfg(not(doc))]
        #outer
        #beside
    }
}

/// After a mistake in the signature: a function that fits every route, around the user's.
fn refused(expansion: &Expansion<'_>) -> TokenStream {
    let Expansion {
        handler,
        cfgs,
        options,
        ..
    } = expansion;
    if handler.is_method() {
        // A method cannot stand inside a function or take other arguments, and no route names it.
        let Handler {
            attrs,
            vis,
            sig,
            body,
            ..
        } = handler;
        let attrs = attrs.iter().filter(|attr| check::misplaced(attr).is_none());
        return quote!(#(#attrs)* #vis #sig #body);
    }
    let private = Private::of(options);
    let outer_attrs = outer_attrs(handler);
    let call = private.ty(&quote!(FromRouter<()>));
    let call = quote!(_: #call);
    let outer = outer(expansion, &private, &call, &private.never());
    let beside = beside(expansion);
    quote! {
        #(#outer_attrs)* #(#cfgs)*
        #outer
        #beside
    }
}

/// `fn name(…) -> HandlerFuture { … }`
fn outer(
    expansion: &Expansion<'_>,
    private: &Private<'_>,
    parameters: &TokenStream,
    run: &TokenStream,
) -> TokenStream {
    let Expansion { handler, place, .. } = expansion;
    let Handler { vis, sig, body, .. } = handler;
    let Signature {
        fn_token,
        ident,
        generics,
        ..
    } = sig;
    let inside = match place {
        Place::Inside => inner(handler, &Visibility::Inherited, ident),
        Place::Beside(_) | Place::Associated(_) => TokenStream::new(),
    };
    let mut parens = TokenStream::new();
    sig.paren_token
        .surround(&mut parens, |tokens| tokens.extend(parameters.clone()));
    let mut block = Group::new(body.delimiter(), quote!(#inside #run));
    block.set_span(body.span());
    let outer = outliving(generics);
    let clause = owned(outer.where_clause.to_token_stream(), generics);
    let generics = owned(outer.to_token_stream(), generics);
    let running = private.running();
    quote!(#vis #fn_token #ident #generics #parens -> #running #clause #block)
}

/// The user's generics without lifetimes, for which `'static` stands, and for each type parameter what it takes to outlive the connection. That goes where
/// its other bounds are, since clippy objects to two places.
fn outliving(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    generics.params = generics
        .params
        .into_iter()
        .filter(|param| !matches!(param, GenericParam::Lifetime(_)))
        .collect();
    if let Some(clause) = &mut generics.where_clause {
        clause.predicates = std::mem::take(&mut clause.predicates)
            .into_iter()
            .filter(|predicate| !matches!(predicate, WherePredicate::Lifetime(_)))
            .collect();
    }
    let clause = generics.where_clause.to_token_stream();
    let mut more: Vec<WherePredicate> = Vec::new();
    for param in generics.type_params_mut() {
        let ident = &param.ident;
        if mentions(clause.clone(), &ident.to_string()).is_some() {
            more.push(parse_quote!(#ident: ::core::marker::Send + 'static));
        } else {
            param.bounds.extend::<[TypeParamBound; 2]>([
                parse_quote!(::core::marker::Send),
                parse_quote!('static),
            ]);
        }
    }
    if !more.is_empty() {
        generics.make_where_clause().predicates.extend(more);
    }
    generics
}

/// The user's function, beside the handler.
fn beside(expansion: &Expansion<'_>) -> Option<TokenStream> {
    let Expansion {
        handler,
        cfgs,
        place,
        ..
    } = expansion;
    let (Place::Beside(name) | Place::Associated(name)) = place else {
        return None;
    };
    let attrs = beside_attrs(expansion);
    // What lints have to say is said of the handler.
    let documented = handler.attrs.iter().any(|attr| attr.path().is_ident("doc"));
    let doc =
        (!documented).then(|| quote!(#[doc = "The plain function of an `#[idempotent]` handler."]));
    let mut plain = handler.clone();
    plain.sig.fn_token.span = at(plain.sig.fn_token.span);
    plain.body.set_span(at(plain.body.span()));
    let inner = inner(&plain, &handler.vis, name);
    Some(quote!(#(#attrs)* #(#cfgs)* #doc #inner))
}

/// The user's function.
fn inner(handler: &Handler, vis: &Visibility, name: &Ident) -> TokenStream {
    let Handler {
        attrs, sig, body, ..
    } = handler;
    let attrs = attrs
        .iter()
        .filter(|attr| !is_outer(attr) && check::misplaced(attr).is_none());
    // Not `const`: rustc would refuse `const async` a second time.
    let Signature {
        asyncness,
        safety,
        abi,
        fn_token,
        generics,
        inputs,
        variadic,
        output,
        ..
    } = sig;
    let clause = &generics.where_clause;
    let mut parens = TokenStream::new();
    sig.paren_token.surround(&mut parens, |tokens| {
        quote!(#inputs #variadic).to_tokens(tokens);
    });
    quote!(#(#attrs)* #vis #asyncness #safety #abi #fn_token #name #generics #parens #output #clause #body)
}

/// `_: Slot<A>, call: FromRouter<(A, B)>`
fn parameters(handler: &Handler, options: &Options, private: &Private<'_>) -> TokenStream {
    let arguments: Vec<_> = handler
        .arguments()
        .map(|ty| owned(ty.to_token_stream(), &handler.sig.generics))
        .collect();
    let values = if arguments.is_empty() {
        private.ty(&quote!(UseInnerToCallDirectlyOrPutDebugHandlerBelow))
    } else {
        quote!((#(#arguments,)*))
    };
    let engine = options.engine.as_ref().map(|given| &given.value);
    // Where the type does not fit, as in the method of a trait, that is said of the argument it stands for.
    let of = |ty: &TokenStream, name: &str, inside: TokenStream| {
        let (start, end) = ends(ty);
        let name = Ident::new(name, start);
        let end = quote_spanned!(end=> >);
        let ty = private.ty(&quote_spanned!(start=> #name<#inside #end));
        quote_spanned!(start=> : #ty)
    };
    let nothing = TokenStream::new();
    let last = arguments.last().unwrap_or(&nothing);
    let request = match (stateful(handler, options), engine) {
        (Some(state), _) => of(last, "OnlyInARouterWithState", quote!(#state, #values)),
        (None, Some(engine)) => of(last, "FromRouter", quote!(#values, #engine)),
        (None, None) if arguments.is_empty() => of(last, "FromRouter", values),
        (None, None) => {
            let hint = private.ty(&quote!(
                AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly
            ));
            of(last, "FromRouter", quote!(#values, #hint))
        }
    };
    let placeholders = arguments
        .iter()
        .rev()
        .skip(1)
        .rev()
        .map(|ty| (ends(ty).0, of(ty, "Slot", ty.clone())))
        .map(|(start, ty)| quote_spanned!(start=> _ #ty));
    let mut call = call_name(handler);
    call.set_span(ends(last).0);
    quote!(#(#placeholders,)* #call #request)
}

/// The router's state, if the attribute named it and something comes out of it.
fn stateful<'a>(handler: &Handler, options: &'a Options) -> Option<&'a Type> {
    let state = options.state.as_ref().map(|given| &given.value)?;
    let uses_it = options.engine.is_some() || handler.arguments().next().is_some();
    uses_it.then_some(state)
}

/// The same type with `'static` for the handler's own lifetimes: what outlives a connection borrows from nobody.
fn owned(tokens: TokenStream, generics: &Generics) -> TokenStream {
    let own = |name: &Ident| {
        *name == "_"
            || generics
                .lifetimes()
                .any(|param| param.lifetime.ident == *name)
    };
    let mut tick = false;
    tokens
        .into_iter()
        .map(|token| {
            let after_tick = std::mem::replace(
                &mut tick,
                matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '\''),
            );
            match token {
                TokenTree::Ident(name) if after_tick && own(&name) => {
                    Ident::new("static", name.span()).into()
                }
                TokenTree::Group(group) => {
                    let mut inside = Group::new(group.delimiter(), owned(group.stream(), generics));
                    inside.set_span(group.span());
                    inside.into()
                }
                token => token,
            }
        })
        .collect()
}

/// `run_handler(…)`
fn run(expansion: &Expansion<'_>, private: &TokenStream) -> TokenStream {
    let Expansion {
        handler,
        options,
        place,
        ..
    } = expansion;
    let Signature {
        ident, generics, ..
    } = &handler.sig;
    let here = at(ident.span());
    let call = call(handler, options, private);
    let policy = policy(options, private);
    let name = ident.unraw().to_string();
    let path = place.path(handler);
    let arguments = Ident::new("__arguments", Span::mixed_site());
    let turbofish = turbofish(generics.params.iter(), here);
    let answer = answer(handler, private);
    quote! {
        #private::run_handler(
            #call,
            const { &#policy },
            ::core::concat!(::core::module_path!(), "::", #name),
            |#arguments| #private::respond(#path #turbofish, #arguments, #answer),
        )
    }
}

/// The request and how to extract the arguments from it. What the state must have is checked at its own place.
fn call(handler: &Handler, options: &Options, private: &TokenStream) -> TokenStream {
    let call = call_name(handler);
    let Some(state) = stateful(handler, options) else {
        return call.to_token_stream();
    };
    let checked = |ty: &Type, check: &str| {
        let (start, end) = ends(ty);
        let private = located(private.clone(), start);
        let check = Ident::new(check, start);
        (quote_spanned!(start=> #private::#check), end)
    };
    let engine = options.engine.as_ref().map(|Given { value: ty, .. }| {
        let (engine, end) = checked(ty, "engine");
        quote_spanned!(end=> .engine(#engine::<#state, #ty>))
    });
    let arguments: Vec<_> = handler.arguments().collect();
    let of_last = arguments.len().saturating_sub(1);
    let arguments = arguments.into_iter().enumerate().map(|(index, ty)| {
        let (check, end) = checked(ty, if index == of_last { "last" } else { "part" });
        let parens = quote_spanned!(end=> ());
        let ty = owned(ty.to_token_stream(), &handler.sig.generics);
        quote_spanned!(end=> #check::<#state, #ty, _>#parens)
    });
    quote!(#call #engine.extracting((#(#arguments,)*)))
}

/// The function that makes the response, located at the return type: a type that is no response is one error
/// there.
fn answer(handler: &Handler, private: &TokenStream) -> TokenStream {
    let (start, end) = match handler.answer() {
        Some(Answer::Never(ty)) => {
            let (start, _) = ends(ty);
            return quote_spanned!(start=> |never| never);
        }
        Some(Answer::Type(ty)) => ends(ty),
        Some(Answer::Nothing) | None => {
            (at(handler.sig.ident.span()), at(handler.sig.ident.span()))
        }
    };
    let private = located(private.clone(), start);
    let answer = Ident::new("answer", end);
    quote_spanned!(start=> #private::#answer)
}

/// `::<T, N>`: what can be named; a lifetime cannot where it is late bound, and need not be.
fn turbofish<'a>(
    params: impl Iterator<Item = &'a GenericParam>,
    here: Span,
) -> Option<TokenStream> {
    let names: Vec<_> = params
        .filter_map(|param| match param {
            GenericParam::Type(param) => Some(&param.ident),
            GenericParam::Const(param) => Some(&param.ident),
            GenericParam::Lifetime(_) => None,
        })
        .collect();
    (!names.is_empty()).then(|| quote_spanned!(here=> ::<#(#names),*>))
}

/// The parameter's name. It is hygienic, so no variable of the user's can meet it; the function inside could,
/// since items are not.
fn call_name(handler: &Handler) -> Ident {
    let taken = handler.sig.ident == "__call";
    Ident::new(
        if taken { "__request" } else { "__call" },
        Span::mixed_site(),
    )
}

#[cfg(test)]
#[path = "expand_tests.rs"]
mod tests;
