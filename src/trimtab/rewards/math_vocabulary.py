"""The commands, signs and names of mathematical writing that have a meaning here, and which one."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTIONS = _words(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp max min gcd lcm abs det "
    "arccot arcsec arccsc"
)
GREEK = _words(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu "
    "xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar "
    "partial"
)
GREEK_SIGNS = dict(zip("αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΠΣΦΨΩ", ["alpha", "beta", "gamma", "delta", "epsilon",
    "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon",
    "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi",
    "Omega"], strict=True))  # fmt: skip
RELATIONS = {
    "=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "==": "=", "lt": "<", "gt": ">",
    "le": "<=",
    "leq": "<=", "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "ne": "!=", "neq": "!=",
    "approx": "≈", "equiv": "≡", "cong": "≅", "sim": "~", "simeq": "≃", "in": "∈", "notin": "∉", "mid": "∣",
    "nmid": "∤", "subset": "⊂", "subseteq": "⊆", "supset": "⊃", "perp": "⊥", "parallel": "∥", "propto": "∝",
    "to": "→", "rightarrow": "→", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "≈", "≡": "≡", "∈": "∈", "∉": "∉",
    "∣": "∣", "→": "→", "⊂": "⊂", "⊆": "⊆", "∥": "∥", "⊥": "⊥", "⩽": "<=", "⩾": ">=",
}  # fmt: skip
OPERATORS = {
    "+": "+", "-": "-", "*": "*", "/": "/", "^": "^", "_": "_", "!": "!", "%": "%", ":": ":", "**": "^",
    "·": "*",
    "÷": "/", "cdot": "*", "times": "*", "div": "/", "pm": "pm", "mp": "mp", "±": "pm", "∓": "mp",
    "colon": ":",
    "cup": "cup", "cap": "cap", "setminus": "minus", "∪": "cup", "∩": "cap", "backslash": "minus", "ast": "*",
    "circ": "circ", "degrees": "degree", "degree": "degree", "percent": "%", "bmod": "mod",
    "dagger": "dagger",
}  # fmt: skip
BRACKETS = {"(": "(", "[": "[", "lbrace": "\\{", "lbrack": "[", "langle": "<<", "lfloor": "floor",
    "lceil": "ceil",
             "lvert": "|", "lVert": "||"}  # fmt: skip
CLOSERS = {")": ")", "]": "]", "rbrace": "\\}", "rbrack": "]", "rangle": ">>", "rfloor": "floor",
            "rceil": "ceil", "rvert": "|", "rVert": "||"}  # fmt: skip
LAYOUT = _words(
    "left right displaystyle textstyle scriptstyle limits nolimits big Big bigg Bigg bigl bigr "
    "Bigl Bigr biggl biggr "
    "middle bigm quad qquad"
)
WRAPPERS = _words(
    "text textbf textit textrm texttt textsf textnormal mathrm mathbf mathit mathsf operatorname "
    "mbox rm bf it "
    "boldsymbol bm hbox emph"
)
ACCENTS = _words("vec hat bar overline tilde widehat widetilde dot ddot overrightarrow underline")
COMMANDS = _words("frac dfrac tfrac cfrac sqrt binom dbinom tbinom pmod mod angle triangle complement neg")
WORD_NAMES = {"infinity": "infty", "inf": "infty", "oo": "infty", "pi": "pi"} | {
    name: name
    for name in ("alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "sigma", "omega", "phi")
}
CURRENCIES = {"\\$": "dollars", "$": "dollars", "€": "euros", "£": "pounds", "¥": "yuan", "￥": "yuan"}
