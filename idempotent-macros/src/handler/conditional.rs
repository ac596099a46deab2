//! Arguments with `#[cfg]`: a handler has one variant for each combination of them.

use syn::{Attribute, FnArg, Meta, Signature, Token, parse_quote, punctuated::Punctuated};

/// The signature with and without each of its `#[cfg]` arguments, and the attributes that choose between them.
///
/// The arguments cannot keep their attributes: the type of the handler's last argument lists the others, and types take
/// no attributes.
pub(super) fn variants(sig: Signature) -> Vec<(Vec<Attribute>, Signature)> {
    let Some(index) = sig.inputs.iter().position(is_conditional) else {
        return vec![(Vec::new(), sig)];
    };
    let cfgs: Vec<_> = attributes(&sig.inputs[index])
        .iter()
        .filter(|attr| attr.path().is_ident("cfg"))
        .cloned()
        .collect();
    let none = vec![not_all(&cfgs)];

    let mut kept = sig.clone();
    attributes_mut(&mut kept.inputs[index]).retain(|attr| !attr.path().is_ident("cfg"));
    let mut left_out = sig;
    left_out.inputs = left_out
        .inputs
        .into_iter()
        .enumerate()
        .filter(|(i, _)| *i != index)
        .map(|(_, input)| input)
        .collect();

    [(cfgs, kept), (none, left_out)]
        .into_iter()
        .flat_map(|(cfgs, sig)| {
            variants(sig)
                .into_iter()
                .map(move |(more, sig)| (cfgs.iter().cloned().chain(more).collect(), sig))
        })
        .collect()
}

/// `cfg(not(…))` for one predicate, `cfg(not(all(…)))` for several.
fn not_all(cfgs: &[Attribute]) -> Attribute {
    let predicates: Vec<_> = cfgs
        .iter()
        .filter_map(|cfg| cfg.meta.require_list().ok())
        .map(|list| &list.tokens)
        .collect();
    match predicates.as_slice() {
        [predicate] => parse_quote!(#[cfg(not(#predicate))]),
        several => parse_quote!(#[cfg(not(all(#(#several),*)))]),
    }
}

/// Whether an argument has a `#[cfg]`.
pub(crate) fn is_conditional(input: &FnArg) -> bool {
    attributes(input)
        .iter()
        .any(|attr| attr.path().is_ident("cfg"))
}
/// Rewrites every `#[cfg_attr(…, cfg(…))]` of an argument as `#[cfg(…)]`. The compiler has already applied those of the
/// function itself.
pub(super) fn plain_cfgs(sig: &mut Signature) {
    for input in &mut sig.inputs {
        let attrs = attributes_mut(input);
        *attrs = std::mem::take(attrs)
            .into_iter()
            .flat_map(plain_cfg)
            .collect();
    }
}

/// `cfg(any(not(a), b))` and `cfg_attr(a, rest)` for `cfg_attr(a, cfg(b), rest)`. Any other attribute stays as it is.
fn plain_cfg(attr: Attribute) -> Vec<Attribute> {
    let parts = Punctuated::<Meta, Token![,]>::parse_terminated;
    let (true, Ok(list)) = (
        attr.path().is_ident("cfg_attr"),
        attr.parse_args_with(parts),
    ) else {
        return vec![attr];
    };
    let mut list = list.into_iter();
    let Some(condition) = list.next() else {
        return vec![attr];
    };
    list.flat_map(|meta| plain_cfg(parse_quote!(#[#meta])))
        .map(|attr| under(&condition, &attr))
        .collect()
}

/// An attribute that applies if the condition holds.
fn under(condition: &Meta, attr: &Attribute) -> Attribute {
    match &attr.meta {
        Meta::List(cfg) if attr.path().is_ident("cfg") => {
            let predicate = &cfg.tokens;
            parse_quote!(#[cfg(any(not(#condition), #predicate))])
        }
        meta => parse_quote!(#[cfg_attr(#condition, #meta)]),
    }
}

/// The attributes of an argument.
fn attributes(input: &FnArg) -> &[Attribute] {
    match input {
        FnArg::Typed(argument) => &argument.attrs,
        FnArg::Receiver(receiver) => &receiver.attrs,
    }
}

fn attributes_mut(input: &mut FnArg) -> &mut Vec<Attribute> {
    match input {
        FnArg::Typed(argument) => &mut argument.attrs,
        FnArg::Receiver(receiver) => &mut receiver.attrs,
    }
}

#[cfg(test)]
mod tests {
    use quote::{ToTokens, quote};
    use syn::Signature;

    use super::{plain_cfgs, variants};

    #[test]
    fn each_cfg_doubles_the_variants_on_self_too() {
        let sig: Signature = syn::parse_quote!(fn handler(#[cfg(a)] &self, #[cfg(b)] x: X));
        let found = variants(sig).into_iter().map(|(cfgs, sig)| {
            let inputs = sig.inputs.to_token_stream();
            quote!(#(#cfgs)* #inputs).to_string()
        });
        assert_eq!(
            found.collect::<Vec<_>>(),
            [
                "# [cfg (a)] # [cfg (b)] & self , x : X",
                "# [cfg (a)] # [cfg (not (b))] & self",
                "# [cfg (not (a))] # [cfg (b)] x : X",
                "# [cfg (not (a))] # [cfg (not (b))]",
            ]
        );
    }

    #[test]
    fn a_cfg_in_a_cfg_attr_becomes_a_cfg() {
        for (written, read) in [
            (quote!(#[cfg(a)] x: X), quote!(#[cfg(a)] x: X)),
            (
                quote!(#[cfg_attr(a, cfg(b))] x: X),
                quote!(#[cfg(any(not(a), b))] x: X),
            ),
            (
                quote!(#[cfg_attr(a, allow(b), cfg(c), cfg(d))] x: X),
                quote!(#[cfg_attr(a, allow(b))] #[cfg(any(not(a), c))] #[cfg(any(not(a), d))] x: X),
            ),
            (
                quote!(#[cfg_attr(a, cfg_attr(b, cfg(c)))] x: X),
                quote!(#[cfg(any(not(a), any(not(b), c)))] x: X),
            ),
            (
                quote!(#[cfg_attr(a, doc = "b")] x: X),
                quote!(#[cfg_attr(a, doc = "b")] x: X),
            ),
        ] {
            let mut sig: Signature = syn::parse_quote!(fn handler(#written));
            plain_cfgs(&mut sig);
            assert_eq!(sig.inputs.to_token_stream().to_string(), read.to_string());
        }
    }
}
