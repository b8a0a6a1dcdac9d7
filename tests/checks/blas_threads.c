/* OpenBLAS must be safe to call from many threads at once: ranks can be threads, and streams call it too. Debian's
 * serial flavour is not (cmake/CadreDependencies.cmake); there this program prints differences or crashes. Linked
 * exactly as kernels/ links it. */
#include <cblas.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { N = 128, THREADS = 8, ROUNDS = 100 };

typedef struct job {
    const float *a;
    const float *b;
    const float *want;
    float *c;
    int differences;
} job_t;

static void multiply(const float *a, const float *b, float *c)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, N, N, N, 1.0f, a, N, b, N, 0.0f, c, N);
}

static void *work(void *argument)
{
    job_t *job = argument;

    for (int i = 0; i < ROUNDS; i++) {
        multiply(job->a, job->b, job->c);
        job->differences += memcmp(job->c, job->want, sizeof(float) * N * N) != 0;
    }
    return NULL;
}

static float a[N * N], b[N * N], want[N * N], results[THREADS][N * N];

int main(void)
{
    pthread_t threads[THREADS];
    job_t jobs[THREADS];
    int differences = 0;

    openblas_set_num_threads(1);
    for (int i = 0; i < N * N; i++) {
        a[i] = (float)(i % 7) / 3.0f;
        b[i] = (float)(i % 11) / 5.0f;
    }
    multiply(a, b, want);
    for (int t = 0; t < THREADS; t++) {
        jobs[t] = (job_t){a, b, want, results[t], 0};
        if (pthread_create(&threads[t], NULL, work, &jobs[t]) != 0) {
            printf("thread %d of %d cannot be started\n", t, THREADS);
            return 1;
        }
    }
    for (int t = 0; t < THREADS; t++) {
        (void)pthread_join(threads[t], NULL);
        differences += jobs[t].differences;
    }
    printf("%s: %d of %d products differ\n", openblas_get_config(), differences, THREADS * ROUNDS);
    return differences != 0;
}
