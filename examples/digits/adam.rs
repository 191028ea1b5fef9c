//! Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1). Each operation rounds once, so its bits too are the same everywhere.

use tile25::Error;

use crate::net::Params;

const RATE: f32 = 2e-3;
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

pub(crate) struct Adam {
    mean: Params,
    square: Params,
    /// BETA1 and BETA2 to the power of the steps taken.
    powers: (f32, f32),
}

impl Adam {
    pub(crate) fn new() -> Result<Adam, Error> {
        Ok(Adam { mean: Params::zeros()?, square: Params::zeros()?, powers: (1.0, 1.0) })
    }

    pub(crate) fn step(&mut self, params: &mut Params, gradient: &Params) {
        self.powers = (self.powers.0 * BETA1, self.powers.1 * BETA2);
        let (unbias1, unbias2) = (1.0 - self.powers.0, 1.0 - self.powers.1);
        let moments = self.mean.all_mut().into_iter().zip(self.square.all_mut());
        for ((params, gradient), (mean, square)) in
            params.all_mut().into_iter().zip(gradient.all()).zip(moments)
        {
            for (i, &g) in gradient.iter().enumerate() {
                mean[i] = BETA1 * mean[i] + (1.0 - BETA1) * g;
                square[i] = BETA2 * square[i] + (1.0 - BETA2) * (g * g);
                params[i] -= RATE * (mean[i] / unbias1) / ((square[i] / unbias2).sqrt() + EPSILON);
            }
        }
    }
}
