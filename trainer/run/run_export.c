#include "trainer/run/run_export.h"

#include "base/config/config.h"
#include "base/config/suggest.h"
#include "base/memory.h"
#include "data/hf_folder.h"
#include "data/hf_write.h"
#include "data/json_read.h"
#include "lora/adapter_folder.h"
#include "lora/export_peft.h"
#include "lora/peft_import.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

typedef struct run {
    base_ctx_t *ctx;
    tr_run_export_t *request;
    base_text_pool_t pool; /* owns paths */
    base_config_t *config;
    const char *model; /* the base's folder */
} run_t;

static const char *path_of(run_t *r, const char *below)
{
    return base_text_pool_format(&r->pool, "%s/%s", r->request->run, below);
}

static bool is_there(const char *path)
{
    return path != NULL && access(path, F_OK) == 0;
}

/* ==== the run ==== */

static base_status_t read_config(run_t *r, const char *path)
{
    base_error_list_t errors;

    base_error_list_init(&errors, r->ctx);
    const base_status_t st = base_config_load(r->ctx, path, NULL, 0, &errors, &r->config);
    if (st < 0 && errors.count > 1) {
        base_error_list_print(&errors, r->request->err);
        r->request->reported = true;
    }
    base_error_list_deinit(&errors);
    return st;
}

static base_status_t read_manifest(run_t *r, const char *path)
{
    base_error_list_t errors;
    data_json_object_t model;
    data_json_t *json = NULL;
    const char *text;

    base_error_list_init(&errors, r->ctx);
    base_status_t st = data_json_read(r->ctx, path, DATA_JSON_MAX_BYTES, &errors, &json);
    if (st >= 0) {
        const data_json_object_t root = data_json_root(json);
        if (data_json_child(&root, "model", &model) && data_json_text(&model, "path", &text))
            r->model = base_text_pool_format(&r->pool, "%s", text);
    }
    if (st != BASE_ERR_IO && st != BASE_ERR_NOMEM) st = data_errors_finish(&errors);
    data_json_close(json);
    base_error_list_deinit(&errors);
    return st;
}

static base_status_t open_run(run_t *r)
{
    const char *manifest = path_of(r, "run.json"), *config = path_of(r, "config.yaml");

    if (manifest == NULL || config == NULL) return BASE_ERR_NOMEM;
    if (!is_there(manifest))
        return BASE_FAIL(r->ctx, BASE_ERR_CONFIG, BASE_MSG_RUN_04,
                         "%s: has no run.json: not the folder of a run", r->request->run);
    BASE_TRY(read_config(r, config));
    return read_manifest(r, manifest);
}

/* ==== which adapter ==== */

static const char *adapter_file(run_t *r, const char *name)
{
    return base_text_pool_format(&r->pool, "%s/adapters/%s/" LORA_FOLDER_CONFIG, r->request->run,
                                 name);
}

/* "code, legal": those that have ended. */
static const char *list_there(run_t *r)
{
    const char *list = "";

    for (int64_t i = 0; i < r->config->num_adapters && list != NULL; i++) {
        const char *name = r->config->adapters[i].name;

        if (!is_there(adapter_file(r, name))) continue;
        list = list[0] == '\0' ? name : base_text_pool_format(&r->pool, "%s, %s", list, name);
    }
    return list == NULL ? "" : list;
}

static base_status_t fail_adapter(run_t *r, const char *what)
{
    const char *there = list_there(r);

    if (there[0] == '\0')
        return BASE_FAIL(r->ctx, BASE_ERR_CONFIG, BASE_MSG_RUN_04, "%s: %s; no adapter has ended",
                         r->request->run, what);
    return BASE_FAIL(r->ctx, BASE_ERR_CONFIG, BASE_MSG_RUN_04, "%s: %s; there is %s",
                     r->request->run, what, there);
}

static base_status_t find_adapter(run_t *r, const base_config_adapter_t **adapter_p)
{
    const char *name = r->request->adapter;
    char what[512];

    if (name == NULL && r->config->num_adapters > 1)
        return fail_adapter(r, "has several adapters, and --adapter names none");
    if (name == NULL) name = r->config->adapters[0].name;
    *adapter_p = base_config_adapter(r->config, name);
    if (*adapter_p == NULL) {
        (void)snprintf(what, sizeof what, "no adapter \"%.200s\" in this run", name);
        return fail_adapter(r, what);
    }
    if (is_there(adapter_file(r, name))) return BASE_OK;
    (void)snprintf(what, sizeof what, "adapter \"%.200s\" has not ended yet", name);
    return fail_adapter(r, what);
}

/* ==== an adapter ==== */

/* The run's own folder is in the portable form: a scale of 1 gives its values bit for bit, and the
 * scale it was trained with gives B as it was before that was multiplied in. */
static base_status_t write_adapter(run_t *r, const base_config_adapter_t *c,
                                   const lora_peft_t *peft, const data_hf_folder_t *base,
                                   const lora_layout_t *layout, float *values)
{
    const bool faithful = r->request->faithful;
    const lora_peft_info_t *info = lora_peft_info(peft);
    const double trained = lora_scale(c->alpha, c->rank, c->rslora);
    lora_export_t adapter = {.name = c->name,
                             .layout = layout,
                             .values = values,
                             .alpha = faithful ? c->alpha : (double)layout->rank,
                             .dropout = c->dropout,
                             .rslora = faithful && c->rslora,
                             .faithful = faithful,
                             .base_model = info->base_model != NULL ? info->base_model : r->model,
                             .base = base};

    BASE_TRY(lora_peft_read(peft, layout, faithful ? trained : 1.0, values));
    BASE_TRY(lora_export_peft(r->ctx, r->request->to, &adapter));
    if (!faithful) { /* its README says with what it was trained */
        const char *readme =
            base_text_pool_format(&r->pool, "%s/" LORA_FOLDER_README, r->request->to);
        if (readme == NULL) return BASE_ERR_NOMEM;
        adapter.alpha = c->alpha;
        adapter.rslora = c->rslora;
        BASE_TRY(lora_export_readme(r->ctx, readme, r->request->to, &adapter));
    }
    (void)fprintf(r->request->out, "%s: adapter %s, rank %" PRId32 ", %" PRId64 " parameters, %s\n",
                  r->request->to, c->name, layout->rank, layout->count,
                  faithful ? "alpha and scale as trained" : "portable form");
    return BASE_OK;
}

static base_status_t with_layout(run_t *r, const base_config_adapter_t *c, const lora_peft_t *peft,
                                 const data_hf_folder_t *base)
{
    const lora_peft_info_t *info = lora_peft_info(peft);
    lora_layout_t *layout;
    base_status_t st = BASE_ERR_NOMEM;

    BASE_TRY(
        lora_layout_create(r->ctx, data_hf_folder_spec(base), info->rank, info->targets, &layout));
    float *values = base_calloc(r->ctx, layout->count, sizeof *values, "adapter");
    if (values != NULL) st = write_adapter(r, c, peft, base, layout, values);
    base_free(r->ctx, values);
    lora_layout_destroy(layout);
    return st;
}

static base_status_t export_adapter(run_t *r)
{
    const base_config_adapter_t *c = NULL;
    data_hf_folder_t *base;
    lora_peft_t *peft;

    if (r->request->dtype_given && r->request->dtype != DATA_F32)
        return BASE_FAIL(r->ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "--dtype: adapters are exported in f32");
    BASE_TRY(find_adapter(r, &c));
    const char *dir = base_text_pool_format(&r->pool, "%s/adapters/%s", r->request->run, c->name);
    if (dir == NULL) return BASE_ERR_NOMEM;
    BASE_TRY(data_hf_folder_open(r->ctx, r->model, NULL, &base));
    base_status_t st = lora_peft_open(r->ctx, dir, data_hf_folder_spec(base), NULL, &peft);
    if (st >= 0) {
        st = with_layout(r, c, peft, base);
        lora_peft_close(peft);
    }
    data_hf_folder_close(base);
    return st;
}

/* ==== a model ==== */

static base_status_t read_rows(void *arg, int64_t index, const data_model_tensor_t *tensor,
                               int64_t row, int64_t num_rows, float *to)
{
    (void)tensor;
    return data_hf_folder_read_float(arg, index, row, num_rows, to);
}

static base_status_t export_model(run_t *r)
{
    const char *from = path_of(r, "model"), *config = path_of(r, "model/config.json");
    const data_hf_write_options_t options = {
        .dtype = r->request->dtype, .files_from = from, .config_from = config};
    data_hf_folder_t *folder;

    if (r->request->adapter != NULL || r->request->faithful)
        return BASE_FAIL(r->ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "%s: %s trained the model itself, not adapters",
                         r->request->adapter != NULL ? "--adapter" : "--faithful", r->request->run);
    if (from == NULL || config == NULL) return BASE_ERR_NOMEM;
    if (!is_there(config))
        return BASE_FAIL(r->ctx, BASE_ERR_CONFIG, BASE_MSG_RUN_04,
                         "%s: has no model yet: the run has not ended", r->request->run);
    BASE_TRY(data_hf_folder_open(r->ctx, from, NULL, &folder));
    const data_model_spec_t *spec = data_hf_folder_spec(folder);
    const base_status_t st =
        data_hf_write(r->ctx, r->request->to, spec, &options, read_rows, folder);
    if (st >= 0)
        (void)fprintf(r->request->out, "%s: %s, %" PRId64 " parameters in %s\n", r->request->to,
                      data_model_family_name(spec->family), data_model_spec_parameters(spec),
                      data_dtype_name(r->request->dtype));
    data_hf_folder_close(folder);
    return st;
}

base_status_t tr_run_export(base_ctx_t *ctx, tr_run_export_t *request)
{
    run_t r = {.ctx = ctx, .request = request};

    base_text_pool_init(&r.pool, ctx);
    base_status_t st = open_run(&r);
    if (st >= 0 && r.config->train.mode == BASE_CONFIG_MODE_FULL)
        st = export_model(&r);
    else if (st >= 0)
        st = export_adapter(&r);
    base_config_destroy(r.config);
    base_text_pool_deinit(&r.pool);
    return st;
}
