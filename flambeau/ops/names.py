"""What the families of operators publish that are imported on first use (see later.py).

Written by tools/operator_names.py; a test compares.
"""

#: module -> family -> names of functions
PUBLISHED: dict[str, dict[str, str]] = {
    "": {
        "activations": "celu celu_ hardshrink prelu relu relu_ rrelu rrelu_ selu selu_ threshold threshold_",
        "conv": "conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution",
        "dropout": (
            "alpha_dropout alpha_dropout_ dropout dropout_ feature_alpha_dropout feature_alpha_dropout_ "
            "feature_dropout feature_dropout_"
        ),
        "factorizations": (
            "cholesky cholesky_inverse cholesky_solve det geqrf inverse logdet lu lu_solve lu_unpack orgqr "
            "pinverse qr slogdet svd triangular_solve"
        ),
        "fill": "fill fill_ zero_",
        "linalg": "cdist corrcoef cov cross frobenius_norm matrix_exp matrix_power nuclear_norm ormqr",
        "loss": (
            "binary_cross_entropy_with_logits cosine_embedding_loss cosine_similarity ctc_loss "
            "hinge_embedding_loss kl_div margin_ranking_loss pairwise_distance pdist poisson_nll_loss "
            "triplet_margin_loss"
        ),
        "maths": (
            "acos acos_ acosh acosh_ angle arccos arccos_ arccosh arccosh_ arcsin arcsin_ arcsinh arcsinh_ "
            "arctan arctan_ arctanh arctanh_ asin asin_ asinh asinh_ atan atan_ atanh atanh_ cos cos_ cosh "
            "cosh_ deg2rad deg2rad_ digamma digamma_ erf erf_ erfc erfc_ erfinv erfinv_ exp exp2 exp2_ exp_ "
            "expm1 expm1_ frexp i0 igamma igammac lgamma lgamma_ log log10 log10_ log1p log1p_ log2 log2_ "
            "log_ logit logit_ mvlgamma mvlgamma_ polygamma rad2deg rad2deg_ rsqrt rsqrt_ sigmoid sigmoid_ "
            "sin sin_ sinc sinc_ sinh sinh_ sqrt sqrt_ tan tan_ tanh tanh_"
        ),
        "norm": (
            "batch_norm group_norm instance_norm layer_norm native_batch_norm native_group_norm "
            "native_layer_norm rms_norm"
        ),
        "pool": (
            "adaptive_avg_pool1d adaptive_max_pool1d avg_pool1d max_pool1d max_pool1d_with_indices max_pool2d "
            "max_pool3d"
        ),
        "random": (
            "Generator _standard_gamma _standard_gamma_grad bernoulli binomial default_generator "
            "get_rng_state initial_seed manual_seed multinomial normal poisson rand rand_like randint "
            "randint_like randn randn_like randperm seed set_rng_state standard_gamma"
        ),
        "rnn": (
            "_pack_padded_sequence _pad_packed_sequence gru gru_cell lstm lstm_cell rnn_relu rnn_relu_cell "
            "rnn_tanh rnn_tanh_cell"
        ),
        "scans": (
            "cummax cummin cumprod cumprod_ cumsum cumsum_ cumulative_trapezoid diff gradient logcumsumexp "
            "trapezoid trapz"
        ),
        "softmax": "log_softmax softmax",
        "sorting": (
            "argsort bincount bucketize histc histogram histogramdd kthvalue median mode msort nanmedian "
            "nanquantile quantile searchsorted sort topk unique unique_consecutive"
        ),
        "triangles": "trace tril tril_ triu triu_",
        "vision": (
            "affine_grid_generator channel_shuffle grid_sampler grid_sampler_2d grid_sampler_3d "
            "native_channel_shuffle native_pixel_shuffle native_pixel_unshuffle pixel_shuffle pixel_unshuffle"
        ),
    },
    "linalg": {
        "factorizations": (
            "LinAlgError cholesky cholesky_ex det eig eigh eigvals eigvalsh householder_product inv inv_ex lu "
            "lu_factor lu_factor_ex lu_solve pinv qr slogdet solve solve_ex solve_triangular svd svdvals"
        ),
        "linalg": (
            "cond cross diagonal lstsq matrix_exp matrix_norm matrix_power matrix_rank norm tensorinv "
            "tensorsolve vander vecdot"
        ),
    },
    "nn.functional": {
        "activations": (
            "celu celu_ elu elu_ gelu glu hardshrink hardsigmoid hardswish hardtanh hardtanh_ leaky_relu "
            "leaky_relu_ logsigmoid mish prelu relu relu6 relu_ rrelu rrelu_ selu selu_ sigmoid silu softplus "
            "softshrink softsign tanh tanhshrink threshold threshold_"
        ),
        "attention": "scaled_dot_product_attention",
        "bags": "embedding_bag",
        "conv": "conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d",
        "dropout": "alpha_dropout dropout dropout1d dropout2d dropout3d feature_alpha_dropout",
        "loss": (
            "binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cosine_similarity "
            "cross_entropy ctc_loss gaussian_nll_loss hinge_embedding_loss huber_loss kl_div l1_loss "
            "margin_ranking_loss mse_loss multi_margin_loss multilabel_margin_loss "
            "multilabel_soft_margin_loss nll_loss pairwise_distance pdist poisson_nll_loss smooth_l1_loss "
            "soft_margin_loss triplet_margin_loss triplet_margin_with_distance_loss"
        ),
        "norm": "batch_norm group_norm instance_norm layer_norm local_response_norm normalize rms_norm",
        "pool": (
            "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d "
            "adaptive_max_pool1d_with_indices adaptive_max_pool2d adaptive_max_pool2d_with_indices "
            "adaptive_max_pool3d adaptive_max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d "
            "fractional_max_pool2d fractional_max_pool2d_with_indices fractional_max_pool3d "
            "fractional_max_pool3d_with_indices lp_pool1d lp_pool2d lp_pool3d max_pool1d "
            "max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices "
            "max_unpool1d max_unpool2d max_unpool3d"
        ),
        "softmax": "gumbel_softmax log_softmax softmax softmin",
        "vision": (
            "affine_grid channel_shuffle fold grid_sample interpolate native_channel_shuffle pixel_shuffle "
            "pixel_unshuffle unfold upsample upsample_bilinear upsample_nearest"
        ),
    },
    "special": {
        "maths": (
            "bessel_j0 bessel_j1 bessel_y0 bessel_y1 digamma entr erf erfc erfcx erfinv exp2 expit expm1 "
            "gammainc gammaincc gammaln i0 i0e i1 i1e log1p log_ndtr logit modified_bessel_i0 "
            "modified_bessel_i1 modified_bessel_k0 modified_bessel_k1 multigammaln ndtr ndtri polygamma psi "
            "round scaled_modified_bessel_k0 scaled_modified_bessel_k1 sinc zeta"
        ),
        "softmax": "log_softmax softmax",
    },
}

#: family -> names of Tensor's methods
METHODS: dict[str, str] = {
    "activations": "hardshrink prelu relu relu_",
    "factorizations": (
        "cholesky cholesky_inverse cholesky_solve det geqrf inverse logdet lu lu_solve orgqr pinverse qr "
        "slogdet svd triangular_solve"
    ),
    "fill": (
        "bernoulli_ cauchy_ exponential_ fill_ fill_diagonal_ geometric_ log_normal_ normal_ random_ uniform_ "
        "zero_"
    ),
    "linalg": "corrcoef cov cross matrix_exp matrix_power ormqr",
    "maths": (
        "acos acos_ acosh acosh_ angle arccos arccos_ arccosh arccosh_ arcsin arcsin_ arcsinh arcsinh_ arctan "
        "arctan_ arctanh arctanh_ asin asin_ asinh asinh_ atan atan_ atanh atanh_ cos cos_ cosh cosh_ deg2rad "
        "deg2rad_ digamma digamma_ erf erf_ erfc erfc_ erfinv erfinv_ exp exp2 exp2_ exp_ expm1 expm1_ frexp "
        "i0 i0_ igamma igamma_ igammac igammac_ lgamma lgamma_ log log10 log10_ log1p log1p_ log2 log2_ log_ "
        "logit logit_ mvlgamma mvlgamma_ polygamma polygamma_ rad2deg rad2deg_ rsqrt rsqrt_ sigmoid sigmoid_ "
        "sin sin_ sinc sinc_ sinh sinh_ sqrt sqrt_ tan tan_ tanh tanh_"
    ),
    "random": "bernoulli multinomial",
    "scans": "cummax cummin cumprod cumprod_ cumsum cumsum_ diff logcumsumexp",
    "softmax": "log_softmax softmax",
    "sorting": (
        "argsort bincount histc histogram kthvalue median mode msort nanmedian nanquantile quantile sort topk "
        "unique unique_consecutive"
    ),
    "triangles": "trace tril tril_ triu triu_",
}
